"""A sample depends on itself and its seed, bitwise: not on its batch, on its place in it, or on how memory is laid out.

The scores are of + - * / and comparisons, whose bits do not depend on the place in a tensor; what differs would be the
package's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import Solver, guidance, solvers
from tests.parameters import described, ways

SDE = scoresde.VPSDE()
F32, F64 = torch.float32, torch.float64
SIZES = (2, 17, 33)


def elementwise(x: Tensor, t: Tensor) -> Tensor:
    time = t.reshape(-1, *[1] * (x.ndim - 1))
    return -x / (0.3 + time) + 0.1 * x / (1 + x * x)


def otherwise_in_memory(x: Tensor, t: Tensor) -> Tensor:
    """The same, with the samples of the batch side by side."""
    return across(elementwise(x, t))


def across(x: Tensor) -> Tensor:
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def strided(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, -1)[..., ::2]


def plain(x: Tensor) -> Tensor:
    return x.contiguous()


def states(rows: int, *event: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(rows, *event, generator=torch.Generator().manual_seed(3), dtype=F64).to(dtype)


def same(a: Tensor, b: Tensor) -> bool:
    return bool(torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num()))


def compare(run: Callable[[Tensor, range], dict[str, Tensor]], x: Tensor, rows: tuple[int, ...] = (0, 16, 32)) -> None:
    """What ``run(x, seeds)`` gives of samples alone, and of the same samples in batches."""
    batches = {n: run(x[:n], range(n)) for n in SIZES}
    for i in rows:
        alone = run(x[i : i + 1], range(i, i + 1))
        for n, batch in batches.items():
            for name in alone if i < n else ():
                off = (alone[name][0] - batch[name][i]).abs().max()
                assert same(alone[name][0], batch[name][i]), (name, i, n, float(off))


# dtype, event, layout of the state, score function
CASES: dict[str, tuple[torch.dtype, tuple[int, ...], Callable[[Tensor], Tensor], Any]] = {
    "float32": (F32, (5,), plain, elementwise),
    "one number": (F64, (1,), plain, elementwise),
    "across": (F64, (3,), across, elementwise),
    "both across": (F64, (17,), across, otherwise_in_memory),
    "channels last": (F64, (3, 4, 4), channels_last, elementwise),
}
# Those that depend on their batch by what they are stay out. The contract in test_solvers.py asks every method.
METHODS = [m for m in scoresde.methods() if m.name in {*ways(), "rk45", "dpm23"} and not m.batch_coupled]
KINDS = ("rk45", "adams", "ggf")  # those that sum over a sample to choose its steps


def solve(solver: Solver, score_fn: Any, x: Tensor, seeds: range) -> dict[str, Tensor]:
    budget: dict[str, Any] = {"rtol": 0.1, "atol": 0.1} if solver.adaptive else {"steps": 4}
    found = scoresde.solve(SDE, score_fn, x, method=solver, seeds=seeds, **budget)
    return {"x": found.x, "nfe": found.nfe}


@pytest.mark.parametrize("case", CASES)
def test_a_sample_of_any_method(case: str) -> None:
    dtype, event, layout, score_fn = CASES[case]
    x = layout(states(33, *event, dtype=dtype))
    for method in METHODS if case in ("float32", "both across") else (m for m in METHODS if m.name in KINDS):
        compare(lambda x, s, m=method: solve(m.solver(), score_fn, x, s), x, (0, 16))


VARIANTS: list[Solver] = [
    solvers.DPM23(prediction="data"),
    solvers.RK23(form="data"),
    solvers.RK23(form="angle"),
    *(
        solvers.PredictorCorrector(solvers.DDIM(), corrector)
        for corrector in (
            scoresde.LangevinCorrector(rule="sample"),
            scoresde.LangevinCorrector(rule="dimension", moves=2),
            scoresde.UnderdampedCorrector(),
            scoresde.MALACorrector(lambda x, t: -x.flatten(1)[:, 0] * x.flatten(1)[:, 0], snr=0.5),
        )
    ),
]


@pytest.mark.parametrize("solver", VARIANTS, ids=described)
def test_a_sample_of_variants(solver: Solver) -> None:
    for case in ("float32", "both across"):
        dtype, event, layout, score_fn = CASES[case]
        compare(lambda x, s, f=score_fn: solve(solver, f, x, s), layout(states(33, *event, dtype=dtype)))


@pytest.mark.parametrize(("event", "dtype"), [((1,), F64), ((5,), F64), ((2, 3), F32), ((17,), F32)])
def test_samples_of_adams_at_a_small_tolerance(event: tuple[int, ...], dtype: torch.dtype) -> None:
    def run(x: Tensor, seeds: range) -> dict[str, Tensor]:
        found = scoresde.solve(SDE, elementwise, x, method="adams", rtol=1e-4, atol=1e-4)
        return {"x": found.x, "nfe": found.nfe}

    compare(run, states(33, *event, dtype=dtype), (0, 8, 32))


@pytest.mark.parametrize(
    ("layout", "event", "dtype", "options"),
    [
        pytest.param(plain, (2, 3), F32, {"divergence": "exact", "method": "rk23"}, id="plain"),
        pytest.param(across, (3,), F64, {"divergence": "exact"}, id="across"),
        pytest.param(strided, (2, 3), F64, {"probes": 3}, id="strided"),
        pytest.param(lambda x: x[:1].expand_as(x), (3,), F32, {"probes": 2}, id="expanded"),
    ],
)
def test_codes_and_densities(
    layout: Callable[[Tensor], Tensor], event: tuple[int, ...], dtype: torch.dtype, options: dict[str, Any]
) -> None:
    given: dict[str, Any] = {"rtol": 0.05, "atol": 0.05}
    x = layout(0.5 * states(33, *event, dtype=dtype))
    for coder in (scoresde.encode, scoresde.decode):
        compare(lambda x, s, c=coder: {"x": c(SDE, elementwise, x, **given).x}, x, (0, 32))

    def density(x: Tensor, seeds: range) -> dict[str, Tensor]:
        got = scoresde.log_likelihood(SDE, elementwise, x, seeds=seeds, check=False, **given, **options)
        return {"log_prob": got.log_prob, "latent": got.latent, "nfe": got.nfe, "std_error": got.std_error}

    compare(density, x, (0, 32))
    round_trip = lambda x, s: {"error": scoresde.reconstruct(SDE, elementwise, x, **given).error}  # noqa: E731
    compare(round_trip, layout(0.5 * states(33, 17)), (0, 32))


def test_guidance_that_looks_at_a_whole_sample() -> None:
    two = (lambda x, t: elementwise(x, t), lambda x, t: 0.5 * elementwise(x, t))
    guided = guidance.classifier_free(*two, 2.0, rescale=0.7, sde=SDE)
    for dtype in (F32, F64):
        for layout in (plain, channels_last):
            compare(lambda x, s: solve(solvers.DDIM(), guided, x, s), layout(states(33, 3, 4, 4, dtype=dtype)))


def test_interpolation() -> None:
    a, b = across(states(33, 17)), across(states(66, 17)[33:])
    found = scoresde.interpolate(a, b, [0.3])
    for i in (0, 16, 32):
        assert torch.equal(scoresde.interpolate(a[i : i + 1], b[i : i + 1], [0.3])[:, 0], found[:, i])


@pytest.mark.parametrize("threads", [1, 2])
def test_sums_over_large_samples(threads: int) -> None:
    """Which threads split where a sample is alone, and which torch adds in the order of the memory. Of 16 such sums,
    two to six round otherwise if they are split."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    log_prob = scoresde.NormalPrior().log_prob
    try:
        for dtype in (F32, F64):
            x = states(16, 70_000, dtype=dtype)
            wanted = log_prob(x)
            assert torch.equal(log_prob(across(x)), wanted) and torch.equal(log_prob(strided(x)), wanted)
            for i in range(16):
                assert torch.equal(log_prob(x[i : i + 1]), wanted[i : i + 1]), (dtype, i)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("method", "rowwise"), [("ggf", False), ("ggf", True), ("dpmpp_sde12", True), ("euler_maruyama", False)]
)
def test_a_source_serves_several_solves(method: str, rowwise: bool) -> None:
    """A sample of the third solve is its own, too, although adaptive methods draw for each sample until it is done,
    and whether those that are done leave the batch or not."""

    score: Any = lambda x, t: elementwise(x, t)  # noqa: E731
    score.rowwise = rowwise
    grid = {"steps": 12} if method == "euler_maruyama" else {"rtol": 0.3, "atol": 0.3}

    def third(rows: list[int]) -> tuple[Tensor, Tensor]:
        noise, x = scoresde.SampleNoise(7, indices=rows), states(5, 3)[rows]
        for _ in range(3):
            solution = scoresde.solve(SDE, score, x, method=method, noise=noise, **grid)
            x = solution.x
        return x, torch.as_tensor(solution.nfe)

    together, nfe = third(list(range(5)))
    assert method == "euler_maruyama" or nfe.unique().numel() > 1
    for row in (0, 4):
        assert same(third([row])[0][0], together[row])
