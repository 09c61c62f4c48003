r"""The coverage of certificates, on pilots and samples that are new each time.

For each problem and setting, `scoresde.certify` makes a certificate from each of `PILOTS` independent pilots of 256
draws, and ``certificate.solve`` draws `FRESH` further samples with bounds. Their true errors are distances from tight
solutions of the same draws. Shown are, at each confidence:

- *coverage*: the share of errors that are within the bound, and *z*, its distance from k/(n+1) in standard deviations,
  which follow from the law of the coverage, Beta(k, n+1-k) from pilot to pilot and binomial given a pilot;
- *spread*: how far the variance over pilots is from that law, as a p-value (two-sided, from 20,000 simulated
  variances);
- *bound / error*: the median, and over that of the best of all indicators with hindsight; *extra*: evaluations for the
  indicator, as a share;
- *modes*: the share of samples that may have ended in another mode.

The problems are exact scores (a ring, a Gaussian, heavy tails), posteriors with an observation for each draw, the
network of the digits on three processes, the network of MNIST and, with ``--network FOLDER``, one that somebody else
trained. How `scoresde.certify` combines what it knows of a path was chosen on *ring*.

Errors of further samples have the distance between a tight and a looser solution added, as those of the pilot do, where
the two differ noticeably (`Problem.uncertain`): the law above is that of such sums. *alone* is the coverage without it,
which is at least as much.

Tight solutions are kept in ``--folder``, and the file keeps the figures of each pilot until a setting has all of them,
so that ``--resume`` goes on where a run was stopped. ``python -m benchmarks certificates --folder FOLDER`` writes
``results/certificates.json``; ``--only NAME …`` measures some problems and keeps the others.
"""

from __future__ import annotations

import argparse
import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks import _few_problems as few
from benchmarks._record import RESULTS, write
from benchmarks._tables import load
from scoresde.targets import GaussianMixture
from scoresde.trust import Coverage
from scoresde.trust.certificate import FRESH
from scoresde.trust.coupling import seeds_of
from scoresde.trust.running import PILOT

PILOTS, DRAWS, FRESH_DRAWS = 40, 256, 200
CONFIDENCES = (0.9, 0.95)
HINDSIGHT = 5  # pilots on which every indicator is tried
F64 = torch.float64
Pilot = dict[str, Any]  # the figures of one pilot
SETTINGS: dict[str, dict[str, Any]] = {
    "auto, 5": {"method": "auto", "evaluations": 5},
    "dpmpp_2m, 8": {"method": "dpmpp_2m", "steps": 8},
    "unipc2, 10": {"method": "unipc2", "steps": 10},
    "ddim, 20": {"method": "ddim", "steps": 20},
    "dpm_3m, 20": {"method": "dpm_3m", "steps": 20},
    "heun, 50": {"method": "heun", "steps": 25},
}
NOISY = {"dpmpp_2m_sde, 20": {"method": "dpmpp_2m_sde", "steps": 20}}
TIGHT = 1e-5, 1e-4  # the tolerances of the reference of networks that take long
ROUGH = 3e-4, 1e-3  # of a network that takes 1,550 evaluations at 1e-5, and 84 at 3e-4
FEW = {name: SETTINGS[name] for name in ("unipc2, 10", "dpm_3m, 20")}
COARSE = {name: SETTINGS[name] for name in ("unipc2, 10", "ddim, 20")}  # errors that are large beside `ROUGH`


@dataclass(frozen=True)
class Problem:
    """What is solved.

    Attributes:
        sde, score, event, dtype: of the solves.
        kind: ``"exact"`` or ``"network"``.
        context: of so many draws, by seed.
        settings: the methods.
        levels: the tolerances of the reference, tight and loose; those of its kind if they are None.
        uncertain: whether the errors of further samples have the uncertainty of the reference added.
    """

    sde: Any
    score: Any
    event: tuple[int, ...]
    kind: str
    settings: Mapping[str, dict[str, Any]]
    context: Callable[[int, int], dict[str, Tensor]] = lambda count, seed: {}
    levels: tuple[float, float] | None = None
    uncertain: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Of the states."""
        return F64 if self.kind == "exact" else torch.float32

    @property
    def tolerances(self) -> tuple[float, float]:
        """Of the tight and the looser solution."""
        return self.levels or ((1e-8, 1e-7) if self.kind == "exact" else (2e-6, 1e-5))


def tails() -> GaussianMixture:
    """Student's t with 3 degrees of freedom in four dimensions, nearly: a mixture of normals around 0."""
    scales = torch.logspace(-0.6, 1.0, 12, dtype=F64)
    weights = scales**-4 * torch.exp(-1.5 / scales**2)
    return GaussianMixture(weights / weights.sum(), torch.zeros(12, 4, dtype=F64), scales=scales)


def exact(target: Any, sde: Any, settings: Mapping[str, dict[str, Any]]) -> Problem:
    """A target whose score is known."""
    score = target.score(sde)
    return Problem(sde, score, tuple(score.event_shape), "exact", settings)


def observed(name: str, folder: Path | None) -> Problem:
    """The posterior network of `benchmarks._few_problems`, with an observation for each draw."""
    _, data, *_ = few.SMALL[name]
    found = few.small(name, folder, 2)

    def context(count: int, seed: int) -> dict[str, Tensor]:
        return {"y": data(count, few.draws(seed))[1]}

    return Problem(found.sde, found.score, tuple(found.x.shape[1:]), "network", SETTINGS, context)


def labelled(
    network: str, sde: Any, settings: Mapping[str, dict[str, Any]], levels: tuple[float, float] | None = None
) -> Problem:
    """A network of the package, with a label for each draw."""
    model = scoresde.load(network)

    def context(count: int, seed: int) -> dict[str, Tensor]:
        return {"label": torch.randint(10, (count,), generator=few.draws(seed))}

    return Problem(sde, model.score(sde), tuple(model.config.event_shape), "network", settings, context, levels)


def foreign(folder: Path) -> Problem:
    """A network that somebody else trained."""
    found = few.foreign(folder, 2)
    return Problem(found.sde, found.score, tuple(found.x.shape[1:]), "network", COARSE, levels=ROUGH, uncertain=True)


PROBLEMS: dict[str, Callable[[Path | None], Problem]] = {
    "ring, VP": lambda _: exact(few.ring(), few.VP, {**SETTINGS, **NOISY}),
    "Gaussian, VE": lambda _: exact(few.gaussian(), scoresde.VESDE(), SETTINGS),
    "heavy tails, EDM": lambda _: exact(tails(), few.EDM, SETTINGS),
    "two moons posterior": lambda folder: observed("two moons posterior", folder),
    "linear posterior": lambda folder: observed("linear posterior", folder),
    "digits, VP": lambda _: labelled("digits", few.VP, SETTINGS),
    "digits, EDM": lambda _: labelled("digits", few.EDM, SETTINGS),
    "digits, flow": lambda _: labelled("digits", few.FLOW, SETTINGS),
    "mnist, VP": lambda _: labelled("mnist", few.VP, FEW, TIGHT),
}


class Case:
    """A problem with its tight solutions."""

    def __init__(self, name: str, problem: Problem, folder: Path | None) -> None:
        self.name, self.problem = name, problem
        self.file = few.kept(folder, f"certificates_{name}")
        self.ends: dict[str, Tensor] = {}
        if self.file and self.file.exists():
            self.ends = torch.load(self.file, weights_only=True)

    def context(self, seed: int, purpose: int) -> dict[str, Tensor]:
        """Of the pilot or of the further samples, all different."""
        return self.problem.context(DRAWS if purpose == PILOT else FRESH_DRAWS, 1_000 * purpose + seed)

    def solutions(self, seed: int, purpose: int) -> tuple[Tensor, Tensor]:
        """Tight and looser, of the pilot or of the further samples; the tight one twice if the looser is not needed."""
        problem, found = self.problem, []
        count = DRAWS if purpose == PILOT else FRESH_DRAWS
        for tolerance in problem.tolerances[: 2 if purpose == PILOT or problem.uncertain else 1]:
            key = f"{purpose} {seed} {tolerance:g}"
            if key not in self.ends:
                solution = scoresde.solve(
                    problem.sde, problem.score, method="adams", rtol=tolerance, atol=tolerance, throw=False,
                    shape=(count, *problem.event), dtype=problem.dtype, seeds=seeds_of(seed, count, purpose),
                    context=self.context(seed, purpose) or None,
                )  # fmt: skip
                self.ends[key] = solution.x
                if self.file:
                    torch.save(self.ends, self.file)
            found.append(self.ends[key])
        return found[0], found[-1]

    def certify(self, settings: Mapping[str, Any], seed: int, **options: Any) -> scoresde.trust.Certificate:
        """A certificate from one pilot."""
        problem, noisy = self.problem, "sde" in str(settings["method"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", scoresde.ScoreSDEWarning)
            return scoresde.certify(
                problem.sde, problem.score, **settings, seed=seed, shape=(DRAWS, *problem.event), dtype=problem.dtype,
                context=self.context(seed, PILOT), reference=None if noisy else self.solutions(seed, PILOT),
                batch_size=DRAWS // 2, identity="network", **options,
            )  # fmt: skip

    def fresh(self, certificate: scoresde.trust.Certificate, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """True errors of further samples, what the reference is uncertain by, and bounds."""
        given = {"shape": (FRESH_DRAWS, *self.problem.event), "context": self.context(seed, FRESH), "throw": False}
        if "sde" in certificate.method:
            problem = self.problem
            path = scoresde.BrownianPath(seeds_of(seed, FRESH_DRAWS, FRESH), problem.sde.t_min, problem.sde.t_max)
            solution = certificate.solve(noise=path, **given)
            exact = looser = scoresde.solve(
                problem.sde, problem.score, method="dpmpp_2m_sde", steps=640, noise=path, dtype=problem.dtype, **given
            ).x
        else:
            solution = certificate.solve(seed=seed, **given)
            exact, looser = self.solutions(seed, FRESH)
        assert solution.error_bound is not None
        return distance(solution.x, exact), distance(looser, exact), solution.error_bound

    def row(self, settings: Mapping[str, Any], seed: int) -> Pilot:
        """The figures of one pilot."""
        certificate = self.certify(settings, seed)
        errors, gaps, bounds = self.fresh(certificate, seed)
        tried = {}
        for indicator in scoresde.trust.indicators.INDICATORS if seed < HINDSIGHT else ():
            fixed = self.certify(settings, seed, indicator=indicator)
            found, _, limits = self.fresh(fixed, seed)
            tried[indicator] = float((limits / found.clamp_min(1e-300)).median())
        scaled = {c: bounds * (certificate.at(c).pooled.quantile / certificate.pooled.quantile) for c in CONFIDENCES}
        return {
            "reference": self.problem.tolerances[0],
            "covered": shares(errors + gaps, scaled),
            **({"alone": shares(errors, scaled)} if self.problem.uncertain else {}),
            "error": float(errors.median()),
            "bound / error": float((bounds / errors.clamp_min(1e-300)).median()),
            "indicator": certificate.indicator.name,
            "extra": certificate.extra_evaluations / certificate.evaluations,
            "modes": certificate.law.switched / len(certificate.law.distances),
            "prokhorov": certificate.law.prokhorov,
            "evaluations": certificate.evaluations,
            **({"tried": tried} if tried else {}),
        }


def distance(x: Tensor, y: Tensor) -> Tensor:
    """RMS per dimension, infinite for samples that failed."""
    return (x.to(F64) - y.to(F64)).flatten(1).square().mean(1).sqrt().nan_to_num(nan=math.inf)


def shares(errors: Tensor, limits: Mapping[float, Tensor]) -> dict[str, float]:
    """Of errors that are within the bound, by confidence."""
    return {str(c): float((errors <= limit).to(F64).mean()) for c, limit in limits.items()}


def summary(rows: Sequence[Pilot]) -> dict[str, Any]:
    """All figures of a setting, from those of its pilots."""
    tried = {name: median([row["tried"][name] for row in rows[:HINDSIGHT]]) for name in rows[0]["tried"]}
    chosen = [row["indicator"] for row in rows]
    ratio = median([row["bound / error"] for row in rows])
    alone = [row["alone"] for row in rows if "alone" in row]
    return {
        "evaluations": median([row["evaluations"] for row in rows]),
        "error": median([row["error"] for row in rows]),
        "bound / error": ratio,
        "over hindsight": ratio / min(tried.values()),
        "tried": tried,
        "indicators": {name: chosen.count(name) for name in sorted(set(chosen))},
        "extra": max(row["extra"] for row in rows),
        "modes": sum(row["modes"] for row in rows) / len(rows),
        "prokhorov": median([row["prokhorov"] for row in rows]),
        "coverage": {
            str(c): judged([row["covered"][str(c)] for row in rows], Coverage.of(DRAWS // 2, c)) for c in CONFIDENCES
        },
        **({"alone": {str(c): sum(row[str(c)] for row in alone) / len(alone) for c in CONFIDENCES}} if alone else {}),
    }


def judged(shares: Sequence[float], law: Coverage) -> dict[str, float]:
    """Coverage beside its law."""
    pilots, between = len(shares), law.std**2
    mean = sum(shares) / pilots
    spread = math.sqrt(between / pilots + (law.mean * (1 - law.mean) - between) / (pilots * FRESH_DRAWS))
    variance = float(torch.tensor(shares, dtype=F64).var())
    torch.manual_seed(0)
    beta = torch.distributions.Beta(float(law.rank), float(law.draws + 1 - law.rank))
    counts = torch.distributions.Binomial(FRESH_DRAWS, beta.sample((20_000, pilots)).to(F64)).sample()
    simulated = (counts / FRESH_DRAWS).var(1)
    below = float((simulated <= variance).to(F64).mean())
    return {
        "mean": mean,
        "centre": law.mean,
        "z": (mean - law.mean) / spread,
        "spread": math.sqrt(variance),
        "p of spread": min(1.0, 2 * min(below, 1 - below) + 2 / 20_000),
    }


def median(values: Sequence[float]) -> float:
    """The median."""
    return float(torch.tensor(values, dtype=F64).median())


def main(arguments: list[str]) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks certificates", description=__doc__)
    few.add_arguments(parser)
    parser.add_argument("--resume", action="store_true", help="keep the methods of a problem that are in the file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    makers = dict(PROBLEMS)
    if options.network:
        makers["foreign network, VP"] = lambda _: foreign(options.network)
    file = RESULTS / "certificates.json"
    command = " ".join(["python -m benchmarks certificates", *(["--network …"] if options.network else [])])
    for name in options.only or list(makers):
        case = Case(name, makers[name](options.folder), options.folder)
        known = load("certificates")["results"] if file.exists() else {"problems": {}}
        done = known["problems"].setdefault(name, {"kind": case.problem.kind, "settings": {}})["settings"]
        partly = known.setdefault("pilots", {}).setdefault(name, {})
        for setting in partly.keys() - case.problem.settings.keys():  # it is no longer measured
            del partly[setting]
        if not options.resume:
            partly.clear()
        for rows in partly.values():  # measured against another reference
            rows[:] = [row for row in rows if row["reference"] == case.problem.tolerances[0]]
        left = [s for s in case.problem.settings if s in partly or not (options.resume and s in done)]
        for seed, setting in itertools.product(range(PILOTS), left):
            rows = partly.setdefault(setting, [])
            if seed < len(rows):
                continue
            rows.append(case.row(case.problem.settings[setting], seed))
            if len(rows) == PILOTS:
                done[setting] = summary(partly.pop(setting))
                print(f"{name:24}{setting:18}{shown(done[setting])}", flush=True)
            write("certificates", {**known, "pilots": {k: v for k, v in known["pilots"].items() if v}}, command)


def shown(row: Mapping[str, Any]) -> str:
    """The figures of a setting in a line."""
    covered = "  ".join(
        f"{c}: {r['mean']:.4f} z {r['z']:+.1f} p {r['p of spread']:.3f}" for c, r in row["coverage"].items()
    )
    return (
        f"{covered}  bound/error {row['bound / error']:.2f}  over hindsight {row['over hindsight']:.2f}  "
        f"extra {row['extra']:.2f}  modes {row['modes']:.3f}  {row['indicators']}"
    )
