"""Certificates: what they cover, what they are made of, and what they refuse."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde
from scoresde.core.errors import InvalidArgumentError, InvalidTypeError, ScoreSDEWarning, SolveFailedError
from scoresde.trust import Certificate, Coverage
from scoresde.trust.certificate import FRESH
from scoresde.trust.coupling import Task, parts, seeds_of
from scoresde.trust.indicators import INDICATORS, Indicator
from scoresde.trust.running import PILOT

F64 = torch.float64
SDE = scoresde.VPSDE()
TARGET = scoresde.targets.Gaussian(torch.tensor([0.5, -1.0], dtype=F64), torch.tensor([0.01, 1.0], dtype=F64))
SCORE = TARGET.score(SDE)
MIXTURE = scoresde.targets.GaussianMixture(
    torch.ones(3, dtype=F64), torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=F64), scales=0.2
)
GIVEN: dict[str, Any] = {"shape": (128, 2), "pilot": 128, "dtype": F64}
METHOD: dict[str, Any] = {"method": "dpmpp_2m", "steps": 8}
# Where the reference is not what is asked about, of fixed steps.
SMALL: dict[str, Any] = {
    **METHOD, "shape": (24, 2), "pilot": 24, "dtype": F64, "indicator": "constant", "confidence": 0.9,
    "reference": (60, 30),
}  # fmt: skip
OTHER = scoresde.VPSDE(beta_max=19.0)


def true_errors(solution: scoresde.Solution, seed: int) -> Tensor:
    """By the closed form of the flow."""
    seeds = seeds_of(seed, len(solution.x), FRESH)
    x = SDE.prior.from_normal(scoresde.SampleNoise(seeds).normal(torch.zeros(len(seeds), 2, dtype=F64)))
    exact = TARGET.flow_map(x, SDE, SDE.t_max, SDE.t_min)
    return (solution.x - exact).square().mean(1).sqrt()


def covered(pilots: int, fresh: int, **options: Any) -> float:
    """The share of new samples within their bounds."""
    share = 0.0
    for seed in range(pilots):
        certificate = scoresde.certify(SDE, SCORE, **METHOD, **{**GIVEN, "seed": seed, **options})
        solution = certificate.solve(shape=(fresh, 2), seed=seed)
        share += float((true_errors(solution, seed) <= solution.error_bound).to(F64).mean()) / pilots
    return share


@pytest.mark.parametrize(("options", "draws"), [({"indicator": "constant", "confidence": 0.8}, 128), ({}, 64)])
def test_coverage_is_what_it_says(options: dict[str, Any], draws: int) -> None:
    """Within four standard deviations over pilots and samples: a false alarm has a probability of about 1e-4, and a
    share that is 5 (128 draws: 7) points off is seen."""
    pilots, fresh = 5, 400
    law = Coverage.of(draws, options.get("confidence", 0.95))
    spread = math.sqrt(law.std**2 / pilots + (law.mean * (1 - law.mean) - law.std**2) / (pilots * fresh))
    assert abs(covered(pilots, fresh, **options) - law.mean) < 4 * spread


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return scoresde.certify(SDE, SCORE, **METHOD, **GIVEN)


def test_samples_are_those_of_solve(certificate: Certificate) -> None:
    seeds = [3, 14, 15]
    solution = certificate.solve(seeds=seeds)
    plain = scoresde.solve(SDE, SCORE, seeds=seeds, shape=(3, 2), dtype=F64, **METHOD)
    assert torch.equal(solution.x, plain.x) and solution.error_bound is not None
    alone = certificate.solve(seeds=[14])
    assert alone.error_bound is not None and torch.allclose(alone.error_bound, solution.error_bound[1:2])
    again = certificate.solve(noise=scoresde.SampleNoise(seeds), shape=(3, 2))
    assert torch.equal(again.x, plain.x) and torch.equal(again.error_bound, solution.error_bound)  # type: ignore[arg-type]
    torch.manual_seed(0)
    one, other = certificate.solve(), certificate.solve()
    assert one.x.shape == (1, 2) and not torch.equal(one.x, other.x)


@pytest.mark.parametrize("indicator", INDICATORS)
def test_indicators(indicator: str) -> None:
    certificate = scoresde.certify(SDE, SCORE, **METHOD, **GIVEN, indicator=indicator, reference=(60, 30))
    assert certificate.indicator.name == indicator and certificate.evaluations == 8
    assert certificate.extra_evaluations == (4 if "half" in indicator else 0)
    solution = certificate.solve(shape=(50, 2), seed=1)
    assert solution.evaluations == (12 if "half" in indicator else 8)
    bounds = solution.error_bound
    assert bounds is not None and bool((bounds > 0).all())
    assert (len(set(bounds.tolist())) == 1) == (indicator == "constant")
    assert certificate.coverage.draws == (128 if indicator == "constant" else 64)


def test_samples_that_arrive_before_others_and_half_precision() -> None:
    """An adaptive method leaves them out; their sizes along the path stay what they were."""
    certificate = scoresde.certify(SDE, SCORE, "rk45", rtol=0.1, **GIVEN, indicator="embedded")
    solution = certificate.solve(shape=(50, 2), seed=1)
    assert len(set(solution.nfe.tolist())) > 1
    assert solution.error_bound is not None and bool(solution.error_bound.isfinite().all())
    half: dict[str, Any] = {**SMALL, "dtype": torch.bfloat16, "indicator": "embedded", "batch_size": 13, "pilot": 64}
    solution = scoresde.certify(SDE, SCORE, **{**half, "shape": (64, 2)}).solve(shape=(3, 2), seed=0)
    assert solution.x.dtype == torch.bfloat16 and bool((solution.error_bound > 0).all())


def test_an_indicator_that_knows_the_error_gives_the_error() -> None:
    torch.manual_seed(0)
    errors = torch.rand(100, dtype=F64) + 0.01
    fitted, without = Indicator.fit("half", [3 * errors**2], errors)
    assert torch.allclose(fitted([3 * errors**2], errors), errors, rtol=0.01, atol=1e-3)
    assert torch.allclose(without, errors, rtol=0.01, atol=1e-3)
    noise = torch.rand(100, dtype=F64)
    fitted, without = Indicator.fit("half", [noise], errors)
    rest = [i for i in range(100) if i != 7]
    other, _ = Indicator.fit("half", [noise[rest]], errors[rest])
    assert float(without[7]) == pytest.approx(float(other([noise[7:8]], errors[7:8])), rel=2e-2)


def test_all_pixels_hold_together() -> None:
    certificate = scoresde.certify(SDE, SCORE, **METHOD, **GIVEN, norm="pixel", confidence=0.9)
    solution = certificate.solve(shape=(400, 2), seed=2)
    assert solution.error_bound is not None and solution.error_bound.shape == (400, 2)
    seeds = seeds_of(2, 400, FRESH)
    x = SDE.prior.from_normal(scoresde.SampleNoise(seeds).normal(torch.zeros(400, 2, dtype=F64)))
    gap = (solution.x - TARGET.flow_map(x, SDE, SDE.t_max, SDE.t_min)).abs()
    share = float((gap <= solution.error_bound).all(1).to(F64).mean())
    assert share >= Coverage.of(64, 0.9).at_least(1 - 1e-4) - 0.05


def test_a_function_of_the_sample() -> None:
    def total(x: Tensor) -> Tensor:
        return x.sum(1)

    certificate = scoresde.certify(SDE, SCORE, **SMALL, norm=total)
    assert certificate.norm == "total" and certificate.solve(shape=(3, 2), seed=0).error_bound is not None
    with pytest.raises(InvalidTypeError, match="a row for each"):
        scoresde.certify(SDE, SCORE, **SMALL, norm=lambda x: x.sum())


def test_confidence_in_the_pilot_and_another_confidence(certificate: Certificate) -> None:
    sure = certificate.at(0.95, 0.95)
    assert sure.coverage.rank > certificate.coverage.rank and sure.pooled.quantile >= certificate.pooled.quantile
    assert certificate.at(0.8).pooled.quantile < certificate.pooled.quantile
    with pytest.raises(InvalidArgumentError, match="at least 99 draws"):
        certificate.at(0.99)
    assert scoresde.certify(SDE, SCORE, **METHOD, **GIVEN, confidence_in_pilot=0.95).coverage == sure.coverage


def test_the_law(certificate: Certificate) -> None:
    seeds = seeds_of(5, 4000, FRESH)
    solution = scoresde.solve(SDE, SCORE, seeds=seeds, shape=(4000, 2), dtype=F64, **METHOD)
    errors = true_errors(solution, 5)
    low, high = certificate.law.wasserstein().low, certificate.law.wasserstein().high
    assert low * 0.9 < float(errors.square().mean().sqrt()) < high * 1.1
    assert certificate.law.unit == pytest.approx(math.sqrt(0.505), rel=0.15)
    assert len(certificate.law.distances) == 128 and certificate.law.switched == 0


def test_the_cheapest_that_reaches_a_target() -> None:
    certificate = scoresde.certify(SDE, SCORE, "dpmpp_2m", steps=[10, 20, 40], target=0.03, **GIVEN)
    steps = certificate.identity.settings["steps"]
    assert certificate.met and certificate.pooled.quantile <= 0.03 and certificate.evaluations == steps
    fewer = scoresde.certify(SDE, SCORE, "dpmpp_2m", steps=steps // 2, **GIVEN, indicator="constant")
    assert fewer.pooled.quantile > 0.03
    assert certificate.indicator.name == "constant" and certificate.coverage.draws == 64
    several = scoresde.certify(SDE, SCORE, ["ddim", "unipc2"], steps=[5, 10, 20], target=0.03, **GIVEN)
    assert several.identity.settings["method"] == "unipc2" and several.evaluations <= steps


@pytest.mark.parametrize("method", ["unipc2", "rk45", "auto"])
def test_a_target_without_a_list(method: str) -> None:
    certificate = scoresde.certify(SDE, SCORE, method, target=0.05, **GIVEN)
    assert certificate.met and ("rtol" if method == "rk45" else "evaluations") in certificate.identity.settings


ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"steps": [5, 10]}, "`steps` is a list, of which a `target` chooses"),
    ({"steps": 5, "target": 0.1, "indicator": "half"}, "leave `indicator` out"),
    ({"steps": 5, "confidence": 0.999}, "takes at least 999 draws"),
    ({"steps": 5, "seeds": [1]}, "`seeds` cannot be set here"),
    ({"steps": 5, "shape": (64, 2)}, "`shape` must be"),
    ({"steps": 5, "by": "y"}, "`by` must name an entry of `context`"),
    ({"steps": 5, "reference": torch.zeros(128, 2)}, "a pair"),
    ({"steps": 5, "t_end": 1.0}, "t_end"),
]


def test_arguments_that_do_not_fit() -> None:
    for options, message in ARGUMENTS:
        with pytest.raises((InvalidArgumentError, InvalidTypeError), match=message):
            scoresde.certify(SDE, SCORE, "ddim", **{**GIVEN, **options})
    with pytest.raises(SolveFailedError, match="None of 2 candidates has a bound of 1e-06: the smallest is"):
        scoresde.certify(SDE, SCORE, "ddim", steps=[5, 10], target=1e-6, **GIVEN)
    with pytest.raises(InvalidArgumentError, match="must not mix adaptive methods"):
        scoresde.certify(SDE, SCORE, ["rk45", "heun"], target=0.1, **GIVEN)

    def unasked(x: Tensor, t: Tensor) -> Tensor:
        raise RuntimeError("called")

    for method in ("pc", "restart"):
        with pytest.raises(InvalidArgumentError, match="has no strong order"):
            scoresde.certify(SDE, unasked, method, steps=10, **GIVEN)
    for method in ("scipy:RK23", "torchdiffeq:dopri5"):
        with pytest.raises(InvalidArgumentError, match="depend on the others of their batch"):
            scoresde.certify(SDE, SCORE, method, rtol=1e-2, atol=1e-2, **GIVEN)


@pytest.mark.parametrize("method", ["euler_maruyama", pytest.param("dpmpp_2m_sde", marks=pytest.mark.slow), "sra1"])
def test_methods_that_draw_noise(method: str) -> None:
    """Against many times as many steps, on the same path."""
    score = MIXTURE.score(SDE)
    given: dict[str, Any] = {"shape": (64, 2), "pilot": 64, "dtype": F64, "indicator": "constant", "confidence": 0.9}
    certificate = scoresde.certify(SDE, score, method, steps=10, **given)
    assert certificate.reference.method == f"{method} on the same path"
    path = scoresde.BrownianPath(range(100), SDE.t_min, SDE.t_max, areas=method == "sra1")
    solution = certificate.solve(noise=path, shape=(100, 2))
    exact = scoresde.solve(SDE, score, method=method, steps=320, noise=path, shape=(100, 2), dtype=F64).x
    errors = (solution.x - exact).square().mean(1).sqrt()
    assert float((errors <= solution.error_bound).to(F64).mean()) > 0.75


class Classes(nn.Module):
    """The exact score of a Gaussian whose width depends on the class."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        node = SDE.nodes(t.to(F64))
        width = torch.where(y == 1, 0.02, 0.6)
        variance = (node.alpha * width) ** 2 + node.sigma**2
        return -(x - 0.3 * node.alpha[:, None]) / variance[:, None]


@functools.cache
def by_class(pilot: int, **options: Any) -> Certificate:
    labels = (torch.arange(pilot) % 10 == 0).long()
    return scoresde.certify(
        SDE, Classes().eval(), **METHOD, shape=(pilot, 2), pilot=pilot, dtype=F64, context={"y": labels},
        indicator="constant", confidence=0.9, reference=(60, 30), **options,
    )  # fmt: skip


def test_classes_have_bounds_of_their_own() -> None:
    certificate = by_class(200, by="y")
    narrow, wide = certificate.bound_for(1), certificate.bound_for(0)
    assert narrow.own and wide.own and (narrow.coverage.draws, wide.coverage.draws) == (20, 180)
    assert narrow.quantile != wide.quantile
    solution = certificate.solve(shape=(4, 2), seed=0, context={"y": torch.tensor([0, 1, 0, 1])})
    assert solution.error_bound.tolist() == [wide.quantile, narrow.quantile] * 2
    with pytest.raises(InvalidArgumentError, match="no draws of the class 2"):
        certificate.solve(shape=(1, 2), seed=0, context={"y": torch.tensor([2])})


def test_a_class_with_too_few_draws_takes_the_bound_of_all() -> None:
    """Nothing is stated for all then: samples of the others have the bounds of their classes."""
    with pytest.warns(ScoreSDEWarning, match="The classes 1 have too few draws"):
        certificate = by_class(80, by="y")
    assert not certificate.bound_for(1).own
    assert certificate.bound_for(1).quantile == certificate.pooled.quantile
    with pytest.raises(InvalidArgumentError, match="not calibrated by class"):
        by_class(80).bound_for(1)
    assert "nothing is stated" in certificate.statement()


def test_another_kind_of_context_is_refused() -> None:
    certificate = by_class(80)
    draws: dict[str, Any] = {"shape": (3, 2), "seed": 0}
    good = torch.tensor([0, 1, 0])
    assert certificate.solve(**draws, context={"y": good}).x.shape == (3, 2)
    assert certificate.solve(seed=0, context={"y": good[:1]}).x.shape == (1, 2)
    one = scoresde.certify(SDE, Classes().eval(), **SMALL, context={"y": torch.tensor([1])})  # the same for all
    assert one.solve(**draws, context={"y": torch.tensor([1])}).x.shape == (3, 2)
    for made, context in (
        *((certificate, given) for given in ({"y": good.int()}, {"y": good[:1]}, {}, {"y": good, "z": good})),
        *((one, {"y": torch.tensor(given)}) for given in ([0], [1, 1, 1])),
    ):
        with pytest.raises(InvalidArgumentError, match=r"made for context|`context` must have names"):
            made.solve(**draws, context=context)
    with pytest.raises(InvalidArgumentError, match="24"):
        scoresde.certify(SDE, Classes().eval(), **SMALL, context={"y": torch.zeros(7, dtype=torch.long)})
    with pytest.raises(InvalidTypeError, match=r"one integer for each of the 24 draws, got torch.float32 \(24,\)"):
        scoresde.certify(SDE, Classes().eval(), **SMALL, context={"y": torch.zeros(24)}, by="y")


def test_a_certificate_is_saved_and_loaded(certificate: Certificate, tmp_path: Path) -> None:
    certificate.save(tmp_path / "c.json")
    loaded = Certificate.load(tmp_path / "c.json")
    assert loaded.content() == certificate.content()
    with pytest.raises(InvalidArgumentError, match="does not have the network"):
        loaded.solve(shape=(2, 2), seed=0)
    one = loaded.on(SDE, SCORE, **METHOD).solve(shape=(2, 2), seed=0)
    other = certificate.solve(shape=(2, 2), seed=0)
    assert torch.equal(one.x, other.x) and torch.equal(one.error_bound, other.error_bound)  # type: ignore[arg-type]


def test_a_certificate_is_for_one_thing(certificate: Certificate, tmp_path: Path) -> None:
    certificate.save(tmp_path / "c.json")
    for sde, score, settings, message in (
        (OTHER, TARGET.score(OTHER), METHOD, "another process"),
        (SDE, MIXTURE.score(SDE), METHOD, "another score function"),
        (SDE, SCORE, {"method": "unipc2", "steps": 8}, "settings"),
        (SDE, SCORE, {**METHOD, "dtype": torch.float32}, "dtype"),
        (SDE, SCORE, {**METHOD, "norm": "max"}, "norm='rms'"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            Certificate.load(tmp_path / "c.json").on(sde, score, **settings)
    other: list[dict[str, Any]] = [{"shape": (2, 3)}, {"seed": 1, "seeds": [1]}, {"seeds": [1, 2], "shape": (3, 2)}]
    changes = {"steps": 9, "method": "ddim", "dtype": torch.float32, "noise": 3, "t_end": 0.1}
    other += [{"shape": (2, 2), name: value} for name, value in changes.items()]
    for given in other:
        with pytest.raises((InvalidArgumentError, InvalidTypeError)):
            certificate.solve(**given)


def test_a_network_that_was_trained_on_is_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.Dropout()).to(F64).eval().requires_grad_(False)
    nn.init.zeros_(net[0].weight)

    def score(x: Tensor, t: Tensor) -> Tensor:
        node = SDE.nodes(t)
        return -x / (0.25 * node.alpha**2 + node.sigma**2)[:, None] + 0 * net(torch.cat([x, t[:, None]], 1))

    certificate = scoresde.certify(SDE, score, **SMALL)
    assert certificate.solve(shape=(1, 2), seed=0).success.all()
    with torch.no_grad():
        net[0].bias.add_(1e-12)
    with pytest.raises(InvalidArgumentError, match="other weights"):
        certificate.solve(shape=(1, 2), seed=0)
    net.train()
    for use in (lambda: certificate.solve(shape=(1, 2), seed=0), lambda: scoresde.certify(SDE, score, **SMALL)):
        with pytest.raises(InvalidArgumentError, match="training mode"):
            use()


def test_a_file_that_is_no_certificate_is_refused(certificate: Certificate, tmp_path: Path) -> None:
    """Another file, one that was cut, one that lacks an entry, or one with numbers that cannot be."""
    with pytest.raises(InvalidArgumentError, match="no file"):
        Certificate.load(tmp_path / "d.json")
    certificate.save(tmp_path / "c.json")
    whole = (tmp_path / "c.json").read_text()
    content = json.loads(whole)
    bad = ["{}", '{"format": 9}', *(whole[:cut] for cut in range(0, len(whole) - 2, len(whole) // 9))]
    bad += [json.dumps({key: value for key, value in content.items() if key != name}) for name in content]
    bad += [json.dumps(content | change) for change in ({"scores": [-1.0] * 64}, {"labels": [1, 2]})]
    for text in bad:
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(scoresde.CorruptCheckpointError, match="is not a certificate"):
            Certificate.load(tmp_path / "c.json")


class Wavering(nn.Module):
    """A score that is another one at each call, at some times."""

    def __init__(self, size: float, start: float, stop: float) -> None:
        super().__init__()
        self.size, self.start, self.stop, self.calls = size, start, stop, 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        other = 1 + self.size * torch.sin(1e6 * x.sum(1, keepdim=True) + 1e3 * self.calls)
        inside = (t >= self.start) & (t <= self.stop)
        return SCORE(x, t) * torch.where(inside[:, None], other, 1.0)


def test_a_random_score_function_is_refused() -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        return 0.5 * torch.tanh(x) + 0.05 * torch.randn_like(x)

    wide = scoresde.EDMSDE(), scoresde.VESDE(sigma_max=50.0)
    models: list[tuple[Any, Any]] = [
        *((SDE, Wavering(*given).eval()) for given in ((0.01, 0.0, 1.0), (0.05, 0.4, 1.0), (0.05, 0.1, 0.3))),
        *((sde, scoresde.ScoreModel(net, sde, "data", event_shape=(2,))) for sde in wide),  # beside much noise
    ]
    for sde, score in models:
        with pytest.raises(InvalidArgumentError, match="The score function is random"):
            scoresde.certify(sde, score, **METHOD, **GIVEN)
        with pytest.raises(InvalidArgumentError, match="The score function is random"):
            scoresde.diagnose(sde, score, TARGET.sample(64, generator=torch.Generator().manual_seed(0)), pilot=32)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_bounds_follow_the_scale_of_the_data(scale: float) -> None:
    """The reference's absolute tolerance is in units of the end states, so that small data have no loose bounds."""
    target = scoresde.targets.Gaussian(torch.zeros(2, dtype=F64), torch.tensor([0.1, 1.0], dtype=F64) * scale**2)
    certificate = scoresde.certify(SDE, target.score(SDE), **METHOD, **GIVEN)
    solution = certificate.solve(shape=(100, 2), seed=1)
    start = SDE.prior.from_normal(scoresde.SampleNoise(seeds_of(1, 100, FRESH)).normal(solution.x))
    errors = (solution.x - target.flow_map(start, SDE, SDE.t_max, SDE.t_min)).square().mean(1).sqrt()
    assert 0.8 < float((solution.error_bound / errors).median()) < 4
    assert certificate.reference.distance < 0.2 * certificate.typical


def test_a_network_may_count_its_calls_but_not_change_its_buffers() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            self.calls += 1
            return SCORE(x, t)

    class Recording(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            self.seen += 1
            return super().forward(x, t)

    with pytest.raises(InvalidArgumentError, match="has changed during the pilot: its weights or buffers"):
        scoresde.certify(SDE, Recording().eval(), **SMALL)
    certificate = scoresde.certify(SDE, Counting().eval(), **SMALL)
    for seed in (0, 1):
        assert certificate.solve(shape=(2, 2), seed=seed).error_bound is not None


def test_a_reference_of_fixed_steps() -> None:
    """For networks of integer labels, on which a tolerance takes thousands of calls."""
    given: dict[str, Any] = {"method": "dpm_2m", "steps": 10, "pilot": 64, "seed": 2}
    own, calls = scoresde.certify(SDE, SCORE, **given), []

    def counted(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return SCORE(x, t)

    fixed = scoresde.certify(SDE, counted, **given, reference=(200, 100), shape=(64, 2), identity="counted")
    assert fixed.pooled.quantile == pytest.approx(own.pooled.quantile, rel=1e-2)
    assert (fixed.reference.method, fixed.reference.tight, fixed.reference.loose) == ("unipc3", 200, 100)
    assert fixed.reference.distance < 0.01 * fixed.typical and fixed.reference.other == ""
    assert len(calls) < 3 * (200 + 100 + 50)
    for wrong in ((200, 400), (0, -1), (400, torch.zeros(64, 2))):
        with pytest.raises(scoresde.ScoreSDEError, match=r"`reference(\[[01]\])?`"):
            scoresde.certify(SDE, SCORE, **given, reference=wrong)  # type: ignore[arg-type]
    with pytest.raises(scoresde.InvalidArgumentError, match="draws noise"):
        scoresde.certify(SDE, SCORE, "dpmpp_2m_sde", steps=10, pilot=64, reference=(400, 200))
    with pytest.raises(SolveFailedError, match="does not agree with itself"):
        scoresde.certify(SDE, SCORE, **{**given, "steps": 40}, reference=(6, 3))


def test_a_reference_of_other_draws_is_noticed() -> None:
    given: dict[str, Any] = {"method": "dpm_2m", "steps": 10, "pilot": 64, "seed": 2}

    def ends(seeds: list[int]) -> Tensor:
        return scoresde.solve(SDE, SCORE, method="unipc3", steps=200, shape=(64, 2), seeds=seeds).x

    right = ends(seeds_of(2, 64, 1))
    assert scoresde.certify(SDE, SCORE, **given, reference=(right, right)).typical < 0.1
    wrong = ends(list(range(64)))
    with pytest.warns(ScoreSDEWarning, match="must begin where the pilot does"):
        scoresde.certify(SDE, SCORE, **given, reference=(wrong, wrong))


def test_a_reference_that_is_given_and_uncertain_widens_the_bound() -> None:
    seeds = seeds_of(0, 128, 1)
    x = SDE.prior.from_normal(scoresde.SampleNoise(seeds).normal(torch.zeros(128, 2, dtype=F64)))
    exact = TARGET.flow_map(x, SDE, SDE.t_max, SDE.t_min)
    given: dict[str, Any] = {**METHOD, **GIVEN, "indicator": "constant"}
    sharp = scoresde.certify(SDE, SCORE, **given, reference=(exact, exact))
    with pytest.warns(ScoreSDEWarning, match="The reference is uncertain"):
        vague = scoresde.certify(SDE, SCORE, **given, reference=(exact, exact + 0.005))
    assert vague.pooled.quantile == pytest.approx(sharp.pooled.quantile + 0.005)
    own = scoresde.certify(SDE, SCORE, **given)
    assert own.pooled.quantile == pytest.approx(sharp.pooled.quantile, rel=0.15) and own.reference.other == "rk45"
    with pytest.raises(SolveFailedError, match="does not agree"):
        scoresde.certify(SDE, SCORE, **given, reference=(exact, exact + 5.0))


class Broken(nn.Module):
    """A score that is NaN for states in a part of the space."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.limit = float(torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - share)))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        bad = (t[:, None] > 0.99) & (x[:, 1:] > self.limit)
        return torch.where(bad, math.nan, SCORE(x, t))


def test_draws_that_fail() -> None:
    """Some are beyond the bound, and more than the confidence allows are an error; NaN is never covered."""
    few = scoresde.certify(SDE, Broken(0.04).eval(), **METHOD, **GIVEN, confidence=0.9, indicator="constant")
    assert math.isfinite(few.pooled.quantile) and math.inf in few.scores
    solution = few.solve(shape=(300, 2), seed=0, throw=False)
    bad = ~solution.success
    assert solution.error_bound is not None and bool(bad.any())
    assert bool(solution.error_bound[bad].isinf().all()) and bool(solution.error_bound[~bad].isfinite().all())
    with pytest.raises(scoresde.NonFiniteError):
        few.solve(shape=(300, 2), seed=0)
    with pytest.raises(SolveFailedError, match="draws failed"):
        scoresde.certify(SDE, Broken(0.2).eval(), **METHOD, **GIVEN, confidence=0.9, indicator="constant")


def test_seeds_of_different_purposes_have_nothing_in_common() -> None:
    all_seeds = [seed for s in range(20) for purpose in (PILOT, FRESH) for seed in seeds_of(s, 200, purpose)]
    assert len(set(all_seeds)) == len(all_seeds)


@pytest.mark.parametrize("edge", [0, 3, 5, 12])
def test_parts_cover_all_rows_and_none_crosses_the_edge(edge: int) -> None:
    found = list(parts(12, 5, edge))
    assert [i for rows in found for i in range(12)[rows]] == list(range(12))
    assert all(not rows.start < edge < rows.stop for rows in found)


GRIDS: dict[str, Callable[[], tuple[dict[str, Any], int]]] = {
    "steps": lambda: ({"method": "dpm_3m", "steps": 11}, 11),
    "two evaluations": lambda: ({"method": "heun", "steps": 11}, 11),
    "default": lambda: ({"method": "ddim"}, 50),
    "times": lambda: ({"method": "ddim", "grid": torch.linspace(1.0, 0.001, 11, dtype=F64)}, 10),
    "fitted": lambda: ({"method": scoresde.tune(SDE, SCORE, 10, dtype=F64)}, 10),
}


@pytest.mark.parametrize("name", GRIDS)
def test_more_steps_and_fewer(name: str) -> None:
    settings, steps = GRIDS[name]()
    task = Task.of(SDE, SCORE, settings, (1, 2), 1, F64, None)
    noise = task.noise([1])
    evaluations = task.solve(noise, 1, {}).evaluations
    fewer, same, more = task.halved(steps), task.refined(1, steps), task.refined(3, steps)
    counts = [task.solve(noise, 1, {}, given).evaluations for given in (fewer, same, more)]
    assert evaluations / 2 - 2 < counts[0] <= evaluations / 2 and counts[1] == evaluations
    assert 2.5 * evaluations < counts[2] <= 3 * evaluations


def test_what_is_said(certificate: Certificate) -> None:
    text = certificate.statement()
    assert "probability of 0.9538" in text and "says nothing of the network's distance to the data" in text
    assert "probability=0.9538" in repr(certificate)


def test_a_function_gives_the_noise_of_a_method_that_draws_none(certificate: Certificate) -> None:
    def draw(k: int, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(k), dtype=F64).to(like)

    made = certificate.solve(shape=(3, 2), noise=draw)
    assert torch.equal(made.x, scoresde.solve(SDE, SCORE, shape=(3, 2), noise=draw, dtype=F64, **METHOD).x)


@pytest.mark.parametrize("wrong", [5, torch.ones(2), math.nan])
def test_an_identity_is_a_text(certificate: Certificate, wrong: Any) -> None:
    with pytest.raises(InvalidTypeError, match="`identity` must be a text"):
        scoresde.certify(SDE, SCORE, **METHOD, **GIVEN, identity=wrong)
    with pytest.raises(InvalidTypeError, match="`identity` must be a text"):
        certificate.on(SDE, SCORE, **METHOD, identity=wrong)
