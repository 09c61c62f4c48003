r"""Whether `scoresde.diagnose` names what limits samples, and whether its numbers are right where they are exact.

Planted faults and sound samplers come from three sources:

- ``own``: from the authors of `diagnose` (`benchmarks._planted`).
- ``blind``: from an examiner who had not seen how it works, with the accepted names fixed before any run
  (`benchmarks._planted_again`). One threshold of `diagnose` has been changed since it was run on them: how near to the
  data shifted and stretched samples must be, so that data in another range are named with small pilots, too. It was
  found on a mixture of three, and all cases were run again.
- ``seen``: an earlier set of the same kind (`benchmarks._planted_blind`), of which seven of ten faults were right at
  first; `diagnose` was then changed.

A diagnosis of a fault is right if an accepted name comes first; that of a sound sampler if nothing is found.

The parts with closed forms are those of Gaussian data: the bound of the prior's total variation from chi-square, the
RMS distance of a method to exact integration, the error of the last step to the data, the divergence of a network, and
the effect of guidance.

``python -m benchmarks diagnoses`` writes ``results/diagnoses.json``; ``--only`` runs some cases again and keeps the
others; ``--check`` runs the parts and three cases, and checks the committed record.
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks import _planted, _planted_again, _planted_blind
from benchmarks._record import RESULTS, write
from benchmarks._tables import load
from scoresde import guidance
from scoresde.targets import Gaussian

F64 = torch.float64
SETS = {"own": _planted, "blind": _planted_again, "seen": _planted_blind}
COUNTED = ("own", "blind")  # of the sets
QUICK = ("own: five steps", "own: guidance too strong", "own: bfloat16")
RIGHT, WITHIN = 27, 0.2  # of 30; of the truth
SDE = scoresde.VPSDE()
VARIANCES = torch.logspace(-2, 0, 8, dtype=F64)
GAUSSIAN = Gaussian(torch.zeros(8, dtype=F64), VARIANCES)


def cases() -> dict[str, tuple[str, bool, Any]]:
    """All of them: the set, whether there is a fault, and the case."""
    return {
        f"{name}: {key}": (name, planted, case)
        for name, module in SETS.items()
        for planted, table in ((True, module.FAULTS), (False, module.SOUND))
        for key, case in table.items()
    }


def measure(name: str) -> dict[str, Any]:
    """A row."""
    of, planted, case = cases()[name]
    found = scoresde.diagnose(**case.arguments())
    first = found.limits[0] if found.limits else None
    return {
        "set": of,
        "fault": planted,
        "accepted": list(case.accepted),
        "limits": list(found.limits),
        "right": first in case.accepted if planted else first is None,
        "total": found.total.value,
        "floor": found.floor,
        "evaluations": found.evaluations / found.pilot,
    }


def _given(target: Any, rows: int = 4000, **others: Any) -> dict[str, Any]:
    x = target.sample(rows, generator=torch.Generator().manual_seed(0))
    return {"sde": SDE, "score_fn": target.score(SDE), "data": x, "dtype": F64, "pilot": 256, **others}


def of_the_prior() -> tuple[float, float]:
    r"""Half the root of :math:`\chi^2 = \prod_d s^2/(\rho_d\sqrt{2s^2-\rho_d^2})\,e^{\mu^2/(2s^2-\rho^2)} - 1`."""
    sde, mean = scoresde.VPSDE(0.1, 6.0), 1.0
    target = Gaussian(torch.full((2,), mean, dtype=F64), 0.5)
    found = scoresde.diagnose(**{**_given(target), "sde": sde, "score_fn": target.score(sde)}, steps=25)
    alpha, sigma = float(sde.alpha(sde.t_max)), float(sde.sigma(sde.t_max))
    s2, r2 = float(sde.prior.from_normal(torch.ones(1, 1, dtype=F64))) ** 2, alpha**2 * 0.5 + sigma**2
    each = s2 / math.sqrt(r2 * (2 * s2 - r2)) * math.exp((alpha * mean) ** 2 / (2 * s2 - r2))
    value = found["prior"].distance
    return math.nan if value is None else value.value, 0.5 * math.sqrt(each**2 - 1)


def of_the_steps() -> tuple[float, float]:
    """DDIM in six steps is a diagonal map of Gaussian data."""
    found = scoresde.diagnose(**_given(GAUSSIAN), method="ddim", steps=6)["steps"].distance
    basis = torch.eye(8, dtype=F64)
    got = scoresde.solve(SDE, GAUSSIAN.score(SDE), basis, method="ddim", steps=6).x.diagonal()
    exact = GAUSSIAN.flow_map(basis, SDE, SDE.t_max, SDE.t_min).diagonal()
    std = float(SDE.prior.from_normal(torch.ones(1, 1, dtype=F64)))
    return math.nan if found is None else found.value, std * float((got - exact).square().mean().sqrt())


def of_the_end() -> tuple[float, float]:
    r"""The error of the data estimate at t = 0.2: its square is the mean of
    :math:`v_d\sigma^2/(\alpha^2v_d+\sigma^2)`."""
    details = scoresde.diagnose(**_given(GAUSSIAN), steps=25, t_end=0.2, denoise=True)["t_min"].details
    node = SDE.node(0.2)
    squares = VARIANCES * node.sigma**2 / (node.alpha**2 * VARIANCES + node.sigma**2)
    return details["error of the data estimate (upper bound with denoise=True)"], float(squares.mean().sqrt())


def of_the_network() -> tuple[float, float]:
    """The divergence of a network for variances that are 1.5 times as large, by a fine quadrature."""
    wrong = Gaussian(torch.zeros(8, dtype=F64), 1.5 * VARIANCES)
    given = {**_given(GAUSSIAN), "score_fn": wrong.score(SDE), "exact_score": GAUSSIAN.score(SDE)}
    found = scoresde.diagnose(**given, steps=25)["network"].distance
    lam = torch.linspace(*(0.5 * float(SDE.log_snr(t)) for t in (SDE.t_max, SDE.t_min)), 20_001, dtype=F64)
    node = SDE.nodes(SDE.time(2 * lam))
    a2, s2 = node.alpha[:, None] ** 2, node.sigma[:, None] ** 2
    squares = s2 * (1 / (a2 * VARIANCES + s2) - 1 / (1.5 * a2 * VARIANCES + s2)) ** 2 * (a2 * VARIANCES + s2)
    return math.nan if found is None else found.value, float(torch.trapezoid(squares.sum(1), lam))


def of_guidance() -> tuple[float, float]:
    """Guided and plain samples of Gaussian data are affine in the noise."""
    one, whole = Gaussian(torch.ones(2, dtype=F64), 0.25), Gaussian(torch.zeros(2, dtype=F64), 1.0)
    plain = one.score(SDE)
    guided = guidance.classifier_free(plain, whole.score(SDE), 3.0)
    found = scoresde.diagnose(**{**_given(one), "score_fn": guided}, steps=25)["guidance"].distance
    std = float(SDE.prior.from_normal(torch.ones(1, 1, dtype=F64)))
    x = torch.tensor([[0.0, 0.0], [std, std]], dtype=F64)

    def ends(score: Any) -> Tensor:
        return scoresde.solve(SDE, score, x, method="adams", rtol=1e-9, atol=1e-9).x[:, 0]

    gap = ends(guided) - ends(plain)
    return math.nan if found is None else found.value, float((gap[0] ** 2 + (gap[1] - gap[0]) ** 2).sqrt())


PARTS = {
    "prior, total variation": of_the_prior,
    "steps, DDIM in 6": of_the_steps,
    "t_min, last step": of_the_end,
    "network, nats": of_the_network,
    "guidance, scale 3": of_guidance,
}


def score(rows: dict[str, Any], sets: tuple[str, ...], planted: bool) -> tuple[int, int]:
    """How many are right, and of how many."""
    found = [row["right"] for row in rows.values() if row["set"] in sets and row["fault"] == planted]
    return sum(found), len(found)


def check(results: dict[str, Any]) -> list[str]:
    """What is beyond the bars."""
    wrong = [
        f"{name}: {part['value']:.4g} in place of {part['truth']:.4g}"
        for name, part in results["parts"].items()
        if not abs(part["value"] / part["truth"] - 1) <= WITHIN
    ]
    right = [score(results["cases"], COUNTED, planted) for planted in (True, False)]
    if sum(count for _, count in right) != 30 or sum(good for good, _ in right) < RIGHT:
        wrong.append(f"{right} of (faults, sound samplers) are right")
    return wrong


def main(arguments: list[str]) -> None:
    """Measure, print, and write or check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks diagnoses", description=__doc__)
    parser.add_argument("--check", action="store_true", help="the parts and three cases; writes nothing")
    parser.add_argument("--only", nargs="+", help="some cases, or all of a set, beside those of the record")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    parts: dict[str, dict[str, float]] = {}
    for name, part in PARTS.items():
        value, truth = part()
        parts[name] = {"value": value, "truth": truth}
        print(f"{name}: {value:.5g}, exactly {truth:.5g}", flush=True)
    kept = (given.only or given.check) and (RESULTS / "diagnoses.json").exists()
    known = load("diagnoses")["results"]["cases"] if kept else {}
    only = QUICK if given.check else given.only
    rows = {name: known[name] for name in cases() if name in known}
    for name in cases():
        if only is None or name in only or name.partition(":")[0] in only:
            rows[name] = measure(name)
            right = "right" if rows[name]["right"] else f"WRONG, not {rows[name]['accepted']}"
            print(f"{name}: {rows[name]['limits']}, {right}", flush=True)
            if not given.check:
                write("diagnoses", {"cases": rows, "parts": parts}, "python -m benchmarks diagnoses")
    wrong = check({"cases": rows, "parts": parts})
    if wrong:
        sys.exit("\n".join(wrong))
