"""Diagnoses: planted faults are found, sound samplers have none, and the numbers are those of closed forms."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde
from scoresde import guidance
from scoresde.core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError, SolveFailedError
from scoresde.nets import MLP
from scoresde.scores import Clip
from scoresde.targets import Empirical, Gaussian, GaussianMixture
from scoresde.trust.coupling import Task
from scoresde.trust.diagnosis import Diagnosis, diagnose
from scoresde.trust.repairs.denoising import Denoised, Linear, States, isotropic_errors, levels_of
from scoresde.trust.repairs.network import NetworkRepair
from scoresde.trust.repairs.process import Prior
from scoresde.trust.repairs.ranges import OtherRange
from scoresde.trust.repairs.subject import Rows, Subject
from scoresde.trust.repairs.unwrapped import without

F64 = torch.float64
SDE = scoresde.VPSDE()
MEANS = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.5]])


def mixture(shift: float = 0.0, scale: float = 1.0) -> GaussianMixture:
    return GaussianMixture(torch.ones(3), shift + scale * MEANS, scales=0.2 * scale)


TARGET = mixture()
SCORE = TARGET.score(SDE)


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def halves(target: Any, rows: int = 250, seed: int = 0) -> dict[str, Tensor]:
    x = target.sample(2 * rows, generator=draws(seed))
    return {"data": x[:rows], "held_out": x[rows:]}


def subject(target: Any, sde: Any, score: Any, exact: Any = None, rows: int = 2000, **settings: Any) -> Subject:
    x = target.sample(rows, generator=draws(0))
    task = Task.of(sde, score, settings, (256, *x.shape[1:]), 256, F64, None)
    data = Rows(x, {})
    given: dict[str, Any] = {"pilot": 256, "seed": 0, "batch_size": 256, "confidence": 0.95, "exact": exact}
    return Subject(task, data, data, False, **given)


class Net(nn.Module):
    """Predicts v."""

    def __init__(self, labels: int = 0) -> None:
        super().__init__()
        self.net = MLP((2,), channels=64, labels=labels)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        node = SDE.nodes(t.to(F64))
        out: Tensor = self.net(x, (-node.lam / 4).to(x.dtype), label)
        return out


def trained(data: Tensor, steps: int, labels: Tensor | None = None) -> scoresde.ScoreModel:
    source = draws(0)
    torch.manual_seed(0)
    net = Net(0 if labels is None else 3)
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    for _ in range(steps):
        rows = torch.randint(len(data), (512,), generator=source)
        x, noise = data[rows], torch.randn(512, 2, generator=source)
        node = SDE.nodes(SDE.time(-10 + 19 * torch.rand(512, generator=source, dtype=F64)).clamp(1e-3, 1.0))
        alpha, sigma = node.alpha[:, None].float(), node.sigma[:, None].float()
        out = net(alpha * x + sigma * noise, node.t.float(), None if labels is None else labels[rows])
        optimiser.zero_grad()
        torch.autograd.backward((out - alpha * noise + sigma * x).square().mean())
        optimiser.step()
        schedule.step()
    return scoresde.ScoreModel(net.eval().requires_grad_(False), SDE, "v", event_shape=(2,))


def overflowing() -> scoresde.ScoreModel:
    """The exact noise of a state that is multiplied by 5e4, and divided again."""

    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
            with torch.no_grad():
                self.up.weight.copy_(5e4 * torch.eye(2))
                self.down.weight.copy_(torch.eye(2) / 5e4)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return SCORE.noise(self.down(self.up(x)).float(), t)

    return scoresde.ScoreModel(Large().requires_grad_(False), SDE, "noise", event_shape=(2,))


@functools.cache
def few_steps() -> Diagnosis:
    return diagnose(SDE, SCORE, **halves(TARGET), method="ddim", steps=4, pilot=64)


class Preconditioned(nn.Module):
    """F of EDM's preconditioning with which the denoiser is that of `TARGET`, exactly."""

    def __init__(self, sigma_data: float) -> None:
        super().__init__()
        self.sigma_data, self.score = sigma_data, TARGET.score(scoresde.EDMSDE())

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        sigma, s = (4 * time.double()).exp()[:, None], self.sigma_data
        size = (sigma**2 + s**2).sqrt()
        y = x * size
        data = y + sigma**2 * self.score(y, sigma[:, 0])
        return (data - s**2 / size**2 * y) * size / (sigma * s)


def edm(sigma_data: float, target: Any = TARGET) -> Diagnosis:
    sde = scoresde.EDMSDE()
    model = scoresde.ScoreModel(Preconditioned(0.8), sde, "edm", sigma_data=sigma_data, event_shape=(2,))
    return diagnose(sde, model, **halves(target), pilot=64)


def planted(score: Any = SCORE, sde: Any = SDE, target: Any = TARGET, rows: int = 250, **given: Any) -> Diagnosis:
    return diagnose(sde, score, **{**halves(target, rows), "pilot": 64, **given})


def of_another_prior() -> Diagnosis:
    target, sde = mixture(3.0), scoresde.VPSDE(0.1, 3.0)
    return planted(target.score(sde), sde, target)


def strongly_guided() -> Diagnosis:
    one = Gaussian(torch.tensor([0.0, 1.0]), 0.5)
    other = Gaussian(torch.zeros(2), 1.0).score(SDE)
    return planted(guidance.classifier_free(one.score(SDE), other, 4.0), target=one)


def memorised() -> Diagnosis:
    few = halves(TARGET)["data"][:20]
    return planted(Empirical(few).score(SDE), data=few)


PLANTED: dict[str, tuple[Callable[[], Diagnosis], tuple[str, ...]]] = {
    "prior": (of_another_prior, ("prior",)),
    "few steps": (few_steps, ("steps",)),
    "memorised": (memorised, ("memorisation", "overfitting")),
    "wrong sigma_data": (lambda: edm(0.2), ("network",)),
    "smaller score": (lambda: planted(lambda x, t: 0.6 * SCORE(x, t), exact_score=SCORE), ("network",)),
    "larger score": (lambda: planted(lambda x, t: 1.5 * SCORE(x, t)), ("network",)),
    "untrained": (lambda: planted(trained(MEANS, 0)), ("network",)),
    "clipped": (lambda: planted(clip=(-0.5, 0.5)), ("range",)),
    "another range": (lambda: planted(target=mixture(0.5, 0.5)), ("range",)),
    "strongly guided": (strongly_guided, ("guidance",)),
    "half precision": (lambda: planted(overflowing(), half_precision=torch.float16), ("dtype",)),
    "early end": (lambda: planted(t_end=0.1), ("t_min",)),
    # the network is that of data four times as small, and its sigma_data is right
    "latents not scaled": (lambda: edm(0.8, mixture(0.0, 4.0)), ("range",)),
    "few noisy steps": (lambda: planted(rows=500, method="euler_maruyama", steps=5, pilot=128), ("steps",)),
}
QUICK = tuple(PLANTED)[:4]


def marked(quick: Callable[[Any], bool], values: Iterable[Any]) -> list[Any]:
    """The values, of which the others are slow."""
    return [value if quick(value) else pytest.param(value, marks=pytest.mark.slow) for value in values]


@pytest.mark.parametrize("fault", marked(QUICK.__contains__, PLANTED))
def test_planted_faults_are_named_first(fault: str) -> None:
    diagnose_it, names = PLANTED[fault]
    diagnosis = diagnose_it()
    assert diagnosis.limits[: len(names)] == names, diagnosis.table()
    assert diagnosis[names[0]].remedy in diagnosis.verdict
    assert ("More steps cannot help" in diagnosis.verdict) == (not {"steps", "dtype"} & {*diagnosis.limits})
    if fault == "wrong sigma_data":  # the right one is named
        assert re.search("sigma_data=0.[78]", diagnosis["network"].finding), diagnosis["network"].finding


class InHalf(nn.Module):
    """The exact score by way of parameters in half precision; ``large`` overflows there."""

    def __init__(self, large: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(large), requires_grad=False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return SCORE.noise((x * self.scale / self.scale).float(), t.float()).to(self.scale.dtype)


@pytest.mark.parametrize(
    ("dtype", "fault"), [(torch.float16, ("dtype",)), pytest.param(torch.bfloat16, (), marks=pytest.mark.slow)]
)
def test_a_network_in_half_precision_is_compared_with_its_copy(dtype: torch.dtype, fault: tuple[str, ...]) -> None:
    net = InHalf(5e4).to(dtype)
    model = scoresde.ScoreModel(net, SDE, "noise", event_shape=(2,))
    diagnosis = diagnose(SDE, model, **halves(TARGET), pilot=64)
    assert diagnosis["dtype"].applies and diagnosis.limits == fault, diagnosis.table()
    assert net.scale.dtype == dtype and next(iter(diagnosis["dtype"].details)) == "not finite"


def posterior(width: float, shift: float = 0.0) -> Diagnosis:
    """Data N(0, 1), each observed with noise of variance 1; the posterior N(y/2, 1/2), or another one."""
    theta = torch.randn(800, 1, generator=draws(6))
    y = theta + torch.randn(800, 1, generator=draws(7))

    def score(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        node = SDE.nodes(t.to(F64))
        alpha, sigma = node.alpha[:, None].to(x.dtype), node.sigma[:, None].to(x.dtype)
        return (alpha * (y / 2 + shift) - x) / (alpha**2 * width / 2 + sigma**2)

    held_out = (theta[400:], {"y": y[400:]})
    given = {"context": {"y": y[:400]}, "held_out": held_out, "posterior_draws": 31}
    return diagnose(SDE, score, theta[:400], method="dpmpp_2m", pilot=128, **given)


@pytest.mark.parametrize(
    ("width", "shift", "said"),
    [
        pytest.param(1.0, 0.0, "cannot be distinguished", marks=pytest.mark.slow),
        (0.25, 0.0, "over-confident"),
        pytest.param(1.0, 0.5, "biased", marks=pytest.mark.slow),
    ],
)
def test_the_calibration_of_posteriors(width: float, shift: float, said: str) -> None:
    diagnosis = posterior(width, shift)
    rung = diagnosis["calibration"]
    assert said in rung.finding and ("calibration" in diagnosis.limits) == rung.matters == (
        said not in rung.finding or "cannot" not in said
    )
    assert rung.unit == "probability" and 0 < rung.floor < 0.25


@pytest.mark.slow
@pytest.mark.parametrize("sound", [False, True], ids=["shuffled", "right"])
def test_shuffled_labels(sound: bool) -> None:
    source = draws(3)
    label = torch.randint(3, (2000,), generator=source)
    x = MEANS[label] + 0.2 * torch.randn(2000, 2, generator=source)
    model = trained(x, 1000, label if sound else label[torch.randperm(len(x), generator=draws(4))])
    context, held_out = {"label": label[:1000]}, (x[1000:], {"label": label[1000:]})
    diagnosis = diagnose(SDE, model, x[:1000], held_out=held_out, context=context)
    assert diagnosis.limits == (() if sound else ("labels",)), diagnosis.table()
    assert (diagnosis["labels"].distance.value > 0.5) == sound  # nats


@pytest.mark.slow
def test_a_network_that_is_trained_for_too_long_on_too_few_data() -> None:
    few = halves(TARGET)["data"][:40]
    diagnosis = diagnose(SDE, trained(few, 1500), few, held_out=halves(TARGET)["held_out"])
    assert diagnosis.limits[0] in ("memorisation", "overfitting") and "overfitting" in diagnosis.limits
    assert "network" not in diagnosis.limits  # further training would not help


@pytest.mark.slow
def test_a_network_that_is_trained_well_is_sound() -> None:
    given = halves(TARGET, 4000)
    assert diagnose(SDE, trained(given["data"], 1000), **given).limits == ()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["", "range", "labels"])
def test_the_digits_network(fault: str) -> None:
    pytest.importorskip("sklearn")
    from scoresde.training.digits_data import digits_split, grey_to_x

    split, source = digits_split(), draws(0)
    data, held_out = grey_to_x(split.train_images, source), grey_to_x(split.test_images, source)
    known, other = split.train_labels, split.test_labels
    if fault == "range":
        data, held_out = (data + 1) / 2, (held_out + 1) / 2
    if fault == "labels":
        order = torch.randperm(10, generator=source)
        known, other = order[known], order[other]
    score = scoresde.load("digits").score(SDE)
    given: dict[str, Any] = {"held_out": (held_out, {"label": other}), "context": {"label": known}}
    diagnosis = diagnose(SDE, score, data, **given, denoise=True, pilot=128)
    assert diagnosis.limits == ((fault,) if fault else ()), diagnosis.table()


SOUND: dict[str, dict[str, Any]] = {
    "vp": {},
    "edm": {"sde": scoresde.EDMSDE()},
    "flow": {"sde": scoresde.FlowSDE(), "denoise": True},
    "stochastic": {"method": "dpmpp_2m_sde", "steps": 30},
    "no strong order": {"method": "pc", "steps": 200},
    "adaptive": {"method": "adams", "rtol": 1e-4, "atol": 1e-4},
    "bfloat16 states, no held-out data": {"held_out": None, "dtype": torch.bfloat16},
    "bfloat16": {"half_precision": torch.bfloat16},
    "wide limits": {"clip": (-3.0, 3.0), "exact_score": SCORE},
}


@pytest.mark.parametrize("name", marked(("bfloat16 states, no held-out data",).__contains__, SOUND))
def test_sound_samplers_have_no_faults(name: str) -> None:
    given = {**halves(TARGET, 500, seed=1), "sde": SDE, "pilot": 64, **SOUND[name]}
    sde = given.pop("sde")
    diagnosis = diagnose(sde, TARGET.score(sde), **given)
    assert diagnosis.limits == () and "No cause is seen" in diagnosis.verdict, diagnosis.table()
    if given.get("dtype") is torch.bfloat16:
        assert diagnosis["dtype"].applies and 0 < diagnosis["dtype"].distance.value < 0.05


def test_the_path_of_a_stochastic_method_may_err_where_its_distribution_does_not() -> None:
    """10 steps of Euler and Maruyama: the paths are 0.58 apart, the distributions 0.06 (4,000 samples, sliced W2). The
    size is that of a shift with the same energy distance, of |shift|^2 E|Y - Y'| / 2 in units of the data."""
    rung = diagnose(SDE, SCORE, **halves(TARGET, 500), method="euler_maruyama", steps=10, pilot=128)["steps"]
    assert rung.distance.low > 0.4 and rung.size < 0.15 and not rung.matters
    x = TARGET.sample(1000, generator=draws(1)).double()
    shift = float(x.std(0).square().mean().sqrt()) * math.sqrt(
        2 * rung.details["energy distance"] / torch.pdist(x).mean()
    )
    assert rung.size == pytest.approx(shift, rel=0.1)


def test_the_divergence_of_a_gaussian_network() -> None:
    """VP on [1e-3, 1], data of variance 0.3 and a network for 0.36: the divergence is 0.00782 nats, from 256 rows."""
    data, wrong = Gaussian(torch.zeros(1, dtype=F64), 0.3), Gaussian(torch.zeros(1, dtype=F64), 0.36)
    of = subject(data, SDE, wrong.score(SDE), data.score(SDE), rows=512)
    denoised = Denoised(of)
    found = NetworkRepair(denoised, OtherRange(of, denoised)).try_on(of).distance
    alpha, sigma = float(SDE.alpha(1e-3)), float(SDE.sigma(1e-3))
    ratio = (0.3 * alpha**2 + sigma**2) / (0.36 * alpha**2 + sigma**2)
    assert 0.5 * (ratio - 1 - math.log(ratio)) == pytest.approx(0.00782, abs=1e-5)
    assert found.low < 0.00782 < found.high and found.high - found.low < 0.004


def test_the_quadrature_of_the_divergence_is_exact_to_a_percent() -> None:
    levels = levels_of(SDE, 1e-3, math.sqrt(0.3))
    node = SDE.nodes(levels.times)
    total = [node.alpha**2 * v + node.sigma**2 for v in (0.3, 0.36)]
    squares = node.sigma**2 * (1 / total[0] - 1 / total[1]) ** 2 * total[0]  # of the noise estimates
    assert float(squares @ levels.weights) == pytest.approx(0.00782, rel=0.01)


def test_the_prior_is_bounded_by_the_coupling_and_by_chi_square() -> None:
    """v = 0.3 and alpha(t_max) = 0.1: the same-noise distance is 5.5e-2; chi2 = (1 - s^2)^(-1/2) - 1 with
    s = v/rho^2 for a prior N(0, sigma^2)."""
    sde = scoresde.VPSDE(0.1, -4 * math.log(0.1) - 0.1)
    sde = scoresde.VPSDE(0.1, -4 * math.log(0.1) - 0.1, prior=scoresde.NormalPrior(float(sde.sigma(1.0))))
    data = Gaussian(torch.zeros(1, dtype=F64), 0.3)
    rung = Prior().try_on(subject(data, sde, data.score(sde)))
    assert rung.details["same-noise distance at t_max (upper bound)"] == pytest.approx(5.5e-2, rel=0.05)
    s = 0.3 * 0.01 / 0.99
    assert rung.details["chi2"] == pytest.approx((1 - s**2) ** -0.5 - 1, abs=2e-5)
    assert rung.kind == "upper bound" and not rung.matters


def test_the_linear_denoiser_is_that_of_a_normal_distribution() -> None:
    cov = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=F64)
    target = Gaussian(torch.tensor([1.0, -2.0], dtype=F64), cov)
    of = subject(target, SDE, target.score(SDE), rows=200_000)
    denoised = Denoised(of)
    linear = Linear(of.data.x).errors(SDE, denoised.states)
    torch.testing.assert_close(linear.mean(0), denoised.held.mean(0), rtol=0.02, atol=1e-4)


def test_states_have_the_context_of_their_rows() -> None:
    of = subject(TARGET, SDE, SCORE)
    rows = Rows(torch.arange(4.0)[:, None].expand(4, 2), {"label": torch.arange(4), "all": torch.ones(1)})
    states = States.of(of, rows, levels_of(SDE, 1e-3, 1.0, 3), 1)
    assert states.context["label"].tolist() == [0, 1, 2, 3] * 3 and states.context["all"].shape == (1,)
    assert states.x0[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0] * 3


def test_the_errors_of_a_normal_distribution_are_those_of_its_score() -> None:
    law = Gaussian(torch.full((2,), 0.7, dtype=F64), torch.full((2,), 0.3**2, dtype=F64))
    rows = Rows(law.sample(5, generator=draws(0)).to(F64), {})
    states = States.of(subject(TARGET, SDE, SCORE), rows, levels_of(SDE, 1e-3, 1.0, 4), 1)
    exact = law.score(SDE).estimate(states.x, SDE.nodes(states.times))
    torch.testing.assert_close(
        isotropic_errors(SDE, states, 0.7, 0.3), states.errors(SDE, exact.data, exact.noise), rtol=1e-9, atol=1e-9
    )


def test_wrappers_are_removed_one_by_one() -> None:
    other = Gaussian(torch.zeros(2), 1.0).score(SDE)
    guided = guidance.classifier_free(SCORE, other, 3.0)
    both = Clip(guided, -2.0, 2.0)
    assert without(both, "range") is guided and without(guided, "guidance") is SCORE
    unguided = without(both, "guidance")
    x = torch.randn(5, 2, generator=draws(0))
    assert unguided is not None and torch.equal(unguided(x, 0.5), Clip(SCORE, -2.0, 2.0)(x, 0.5))
    assert without(guidance.classifier_free(SCORE, other, 1.0), "guidance") is None
    assert without(SCORE, "range") is None and without(SCORE, "guidance") is None


def test_a_sound_sampler_is_shown_and_reproducible_and_its_evaluations_are_counted() -> None:
    rows = 0

    def counted(x: Tensor, t: Tensor) -> Tensor:
        nonlocal rows
        rows += len(x)
        return SCORE(x, t)

    counted.rowwise = True  # type: ignore[attr-defined]
    given: dict[str, Any] = {**halves(TARGET), "pilot": 64, "seed": 5}
    first = diagnose(SDE, counted, **given, posterior_draws=8)
    assert first.evaluations == rows < 500 * 64
    assert first.limits == () and "same context" in first["calibration"].finding
    second = diagnose(SDE, counted, **given)
    assert [(r.name, r.distance, r.size) for r in first.rungs] == [(r.name, r.distance, r.size) for r in second.rungs]
    assert {rung.name for rung in first.rungs if not rung.applies} == {"guidance", "dtype", "labels", "calibration"}
    for rung in first.rungs:
        assert rung.kind in ("exact", "upper bound", "estimate", "asymptotic") or not rung.applies
        assert math.isfinite(rung.size) and rung.finding.endswith(".")
        assert not rung.applies or not any(map(math.isnan, (rung.distance.value, rung.floor)))
    alpha, sigma = float(SDE.alpha(1e-3)), float(SDE.sigma(1e-3))  # the noise of the end, by the coupling
    bound = math.hypot((1 - alpha) * float(given["held_out"].square().mean().sqrt()), sigma)
    assert first["t_min"].distance.value == pytest.approx(bound, rel=1e-3) and first["t_min"].kind == "upper bound"


ARGUMENTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"data": torch.zeros(5, 2)}, InvalidArgumentError, "at least 8 rows"),
    ({"data": torch.zeros(40, 2)}, InvalidArgumentError, "all of them are the same"),
    ({"data": torch.full((40, 2), torch.nan)}, NonFiniteError, "NaN"),
    ({"data": torch.randn(40, 3)}, InvalidArgumentError, "events of shape"),
    ({"held_out": torch.randn(40, 3)}, InvalidArgumentError, "held_out"),
    ({"half_precision": torch.float64}, InvalidTypeError, "half_precision"),
    ({"posterior_draws": 1}, InvalidArgumentError, "posterior_draws"),
    ({"context": {"label": torch.zeros(3)}}, InvalidArgumentError, "a row for each"),
    ({"context": {"label": torch.zeros(250)}}, InvalidArgumentError, "held_out"),
    ({"callback": print}, InvalidArgumentError, "callback"),
]


def test_arguments_that_do_not_fit() -> None:
    for options, error, message in ARGUMENTS:
        with pytest.raises(error, match=message):
            diagnose(SDE, SCORE, **{**halves(TARGET), **options})
    with pytest.raises(InvalidArgumentError, match="training mode"):
        diagnose(SDE, nn.Sequential(InHalf(1.0), nn.Dropout()), **halves(TARGET), pilot=32)
    for scores in ((SCORE, None), (lambda x, t: -x, SCORE)):
        with pytest.raises(InvalidArgumentError, match=r"events of shape \(2,\)"):
            diagnose(SDE, scores[0], torch.randn(40, 3, generator=draws(0)), exact_score=scores[1], pilot=32)


def test_a_method_that_fails_for_some_draws() -> None:
    def score(x: Tensor, t: Tensor) -> Tensor:
        """Not finite where all samples have one time, as those of fixed steps have."""
        fixed = len(t) > 1 and bool((t == t[0]).all()) and float(t[0]) < 0.05
        return torch.where(x[:, :1] > 0.8, torch.nan, SCORE(x, t)) if fixed else SCORE(x, t)

    diagnosis = diagnose(SDE, score, **halves(TARGET), method="ddim", pilot=64)
    assert diagnosis.limits[0] == "steps" and "draws failed" in diagnosis["steps"].finding


def test_a_network_that_fails_for_some_states() -> None:
    def score(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(x[:, :1] > 1.5, torch.nan, SCORE(x, t))

    diagnosis = diagnose(SDE, score, **halves(TARGET), method="heun", steps=8, pilot=64)
    assert diagnosis.limits[0] == "network" and "values that are not finite" in diagnosis.verdict, diagnosis.verdict
    assert "scoresde.check_score" in diagnosis.verdict


@pytest.mark.parametrize(("scale", "pilot"), [(2.0, 64), pytest.param(0.1, 96, marks=pytest.mark.slow)])
def test_another_range_is_named_with_small_pilots(scale: float, pilot: int) -> None:
    """Where chance reaches a fifth of the standard deviation."""
    means = torch.tensor([[-1.5, 0.3], [1.2, 1.0], [0.2, -1.4]])
    target = GaussianMixture(torch.tensor([0.5, 0.3, 0.2]), means, scales=0.25)
    data, held_out = (scale * target.sample(n, generator=draws(5 + n)) for n in (500, 250))
    found = diagnose(SDE, target.score(SDE), data, held_out=held_out, method="dpmpp_2m", pilot=pilot)
    assert found.limits == ("range",), found.table()


def test_a_reference_of_given_steps() -> None:
    """Four sets of states are solved by it, with guidance or clipping more; what is found is the same."""
    given: dict[str, Any] = {**halves(TARGET), "method": "ddim", "steps": 4, "pilot": 64}
    default, fixed = few_steps(), diagnose(SDE, SCORE, reference=(40, 20), **given)
    assert fixed.limits == default.limits == ("steps",)
    assert fixed["steps"].size == pytest.approx(default["steps"].size, rel=0.05)
    more = diagnose(SDE, SCORE, reference=(80, 20), **given)
    sets, rest = divmod(more.evaluations - fixed.evaluations, 40 * 64)
    assert rest == 0 and 1 <= sets <= 5
    with pytest.raises(SolveFailedError, match="does not agree with itself: its 6 and 3 steps"):
        diagnose(SDE, SCORE, reference=(6, 3), **given)
    with pytest.raises(SolveFailedError, match="draws failed"):
        diagnose(SDE, lambda x, t: x * torch.nan, **given)


@pytest.mark.parametrize("seen", ["right", "other rows"])
def test_observations_of_other_rows_are_named(seen: str) -> None:
    """Of a network of posteriors, which takes numbers and no labels."""
    sde, source = scoresde.VPSDE(), torch.Generator().manual_seed(0)
    theta = torch.randn(400, 2, generator=source)
    y = theta + 0.5 * torch.randn(400, 2, generator=source)

    def noise(x: Tensor, t: Tensor, y: Tensor) -> Tensor:  # of N(0.8 y, 0.2), the posterior
        alpha, sigma = (v.to(x)[:, None] for v in (sde.alpha(t), sde.sigma(t)))
        return sigma * (x - alpha * 0.8 * y) / (0.2 * alpha**2 + sigma**2)

    model = scoresde.ScoreModel(noise, sde, "noise", event_shape=(2,))
    context = {"y": y if seen == "right" else y.roll(1, 0)}
    pilot = 64 if seen == "right" else 128
    found = diagnose(sde, model, theta, context=context, pilot=pilot, evaluations=10, reference=(60, 30))
    assert found.limits[:1] == (() if seen == "right" else ("labels",)), found
    assert found["labels"].finding.startswith("With the context of other rows the denoising error rises by")


def test_a_process_that_ends_in_signal_is_named_without_a_sample() -> None:
    """Though few samples do not show that they begin elsewhere; a prior that has the law of the states is right."""
    sde, target = scoresde.VPSDE(t_max=0.25), mixture(0.0, 1.0)
    data = target.sample(256, generator=torch.Generator().manual_seed(0))
    found = diagnose(sde, target.score(sde), data, pilot=64, evaluations=20, reference=(40, 20))
    assert found.limits == ("prior",) and "the data are still" in found["prior"].finding
    even = scoresde.targets.Gaussian(torch.zeros(2), 1.0)
    same = diagnose(sde, even.score(sde), even.sample(256), pilot=64, evaluations=20, reference=(40, 20))
    assert "prior" not in same.limits
    whole = scoresde.VPSDE()
    sound = diagnose(whole, target.score(whole), data, pilot=64, evaluations=10, reference=(60, 30))
    assert not sound.limits and "64 samples are too few to see less than" in sound.verdict


def test_a_leading_grid_begins_with_the_noise_of_its_first_level() -> None:
    chain = scoresde.discrete.BetaChain.linear(1000)
    sde = chain.sde()
    how = {"method": "ddim", "steps": None, "denoise": True, "pilot": 64}
    found = diagnose(sde, TARGET.score(sde), **halves(TARGET), grid=chain.grid(50, "leading"), **how)
    assert not found.limits and not found["prior"].matters
    short = diagnose(sde, TARGET.score(sde), **halves(TARGET), grid=chain.grid(3, "leading")[1:], **how)
    assert "prior" in short.limits  # from 333 of 1,000


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_states_to_begin_at(shift: float) -> None:
    x = shift + torch.randn(64, 2, generator=draws(1))
    found = planted(x=x, reference=(60, 30), evaluations=20)
    assert found.limits == (("prior",) if shift else ())
    assert found["prior"].finding.startswith("`x` may be 1 from the states at t=1 ")


@pytest.mark.parametrize("given", [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)])
def test_the_range_of_images_is_named_for_a_bad_network(given: tuple[float, float]) -> None:
    corners = 0.9 * torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4)
    images = GaussianMixture(torch.ones(16), corners, scales=0.03)
    exact = images.score(SDE)
    low, high = given
    parts = {k: low + (high - low) * (v + 1) / 2 for k, v in halves(images).items()}
    bad = scoresde.ScoreModel(lambda x, t: 0.85 * exact.noise(x, t), SDE, "noise", event_shape=(4,))
    found = diagnose(SDE, bad, **parts, pilot=64, reference=(200, 100))
    assert (found.limits[0] == "range") == (given != (-1.0, 1.0))
    assert ("images in [-1, 1] far better" in found["range"].finding) == (given != (-1.0, 1.0))


@pytest.mark.parametrize("scale", [2.0, 3.0])
def test_a_prior_that_is_most_wrong_is_named(scale: float) -> None:
    """Where the estimate of chi-square has so heavy a tail that its limits say nothing."""
    means = scale * torch.randn(4, 2, generator=draws(302))
    target, sde = GaussianMixture(torch.ones(4), means, scales=0.3 * scale), scoresde.VPSDE(0.1, 1.2)
    found = diagnose(sde, target.score(sde), **halves(target, 400), pilot=128, evaluations=20, reference=(60, 30))
    assert found.limits == ("prior",)


@pytest.mark.parametrize("plant", [0.0, 0.1])
def test_high_noise_is_no_cause_where_its_cures_do_not_help(plant: float) -> None:
    """A score of a single normal distribution, with and without an error at high noise."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4)[::3]
    target = GaussianMixture(torch.ones(len(corners)), corners, scales=0.15)
    one = Gaussian(corners.mean(0), corners.T.cov() + 0.15**2 * torch.eye(4)).score(SDE)

    def noise(x: Tensor, t: Tensor) -> Tensor:
        far = (SDE.log_snr(t) < -2 * math.log(20.0)).to(x)[:, None]
        return one.noise(x, t) - plant * far

    score = scoresde.ScoreModel(noise, SDE, "noise", event_shape=(4,))
    found = diagnose(SDE, score, **halves(target, 400), pilot=128, reference=(200, 100))
    assert found.limits[0] == "network"
