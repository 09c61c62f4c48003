"""A sample depends on itself and its seed, bitwise: not on its batch, on its place in it, or on how memory is laid out.

The scores are of + - * / and comparisons, whose bits do not depend on the place in a tensor; what differs would be the
package's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import Solver, guidance, solvers
from scoresde._tensors import rms, row_norms, row_std, row_sums
from tests.parameters import described, pairs

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
                assert same(alone[name][0], batch[name][i]), (
                    name,
                    i,
                    n,
                    float((alone[name][0] - batch[name][i]).abs().max()),
                )


# dtype, event, layout of the state, score function
CASES: dict[str, tuple[torch.dtype, tuple[int, ...], Callable[[Tensor], Tensor], Any]] = {
    "float32": (F32, (5,), plain, elementwise),
    "one number": (F64, (1,), plain, elementwise),
    "across": (F64, (3,), across, elementwise),
    "both across": (F64, (17,), across, otherwise_in_memory),
    "channels last": (F64, (3, 4, 4), channels_last, elementwise),
}
METHODS = {
    m.name: m
    for m in scoresde.methods()
    if m.name == m.solver.name and not m.batch_coupled and m.name != "annealed_langevin"
}


def solve(solver: Solver, score_fn: Any, x: Tensor, seeds: range) -> dict[str, Tensor]:
    budget: dict[str, Any] = {"rtol": 0.02, "atol": 0.02} if solver.adaptive else {"steps": 4}
    found = scoresde.solve(SDE, score_fn, x, method=solver, seeds=seeds, **budget)
    return {"x": found.x, "nfe": found.nfe}


@pytest.mark.parametrize(("method", "case"), pairs(METHODS, CASES))
def test_a_sample_of_any_method(method: str, case: str) -> None:
    dtype, event, layout, score_fn = CASES[case]
    x = layout(states(33, *event, dtype=dtype))
    compare(lambda x, s: solve(METHODS[method].solver(), score_fn, x, s), x)


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
@pytest.mark.parametrize("case", ["float32", "both across"])
def test_a_sample_of_variants(solver: Solver, case: str) -> None:
    dtype, event, layout, score_fn = CASES[case]
    compare(lambda x, s: solve(solver, score_fn, x, s), layout(states(33, *event, dtype=dtype)))


@pytest.mark.parametrize(
    ("event", "dtype"), [((1,), F64), ((2,), F32), ((5,), F64), ((2, 3), F64), ((2, 3), F32), ((17,), F32)]
)
def test_samples_of_adams_at_a_small_tolerance(event: tuple[int, ...], dtype: torch.dtype) -> None:
    def run(x: Tensor, seeds: range) -> dict[str, Tensor]:
        found = scoresde.solve(SDE, elementwise, x, method="adams", rtol=1e-4, atol=1e-4)
        return {"x": found.x, "nfe": found.nfe}

    compare(run, states(33, *event, dtype=dtype), (0, 1, 8, 16, 25, 32))


@pytest.mark.parametrize(
    ("layout", "event", "dtype"),
    [
        pytest.param(plain, (2, 3), F32, id="plain"),
        pytest.param(across, (3,), F64, id="across"),
        pytest.param(strided, (2, 3), F64, id="strided"),
        pytest.param(lambda x: x[:1].expand_as(x), (3,), F32, id="expanded"),
    ],
)
def test_codes_and_densities(layout: Callable[[Tensor], Tensor], event: tuple[int, ...], dtype: torch.dtype) -> None:
    given: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3}
    x = layout(0.5 * states(33, *event, dtype=dtype))
    for coder in (scoresde.encode, scoresde.decode):
        compare(lambda x, s, c=coder: {"x": c(SDE, elementwise, x, **given).x}, x)

    def density(x: Tensor, seeds: range, **options: Any) -> dict[str, Tensor]:
        got = scoresde.log_likelihood(SDE, elementwise, x, seeds=seeds, check=False, **given, **options)
        return {"log_prob": got.log_prob, "latent": got.latent, "nfe": got.nfe, "std_error": got.std_error}

    for options in ({"divergence": "exact"}, {"probes": 3}, {"divergence": "exact", "method": "rk23"}):
        compare(lambda x, s, o=options: density(x, s, **o), x, (0, 32))  # type: ignore[arg-type]
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


def layouts(x: Tensor) -> Iterator[Tensor]:
    yield from (x, across(x), strided(x))
    yield x.movedim(-1, 0).contiguous().movedim(0, -1)


@pytest.mark.parametrize("threads", [1, 2])
def test_sums_over_a_sample(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)  # which split a single long sum
    try:
        for dtype in (F32, F64):
            for size in (1, 2, 3, 8, 17, 48, 1000, 50_000):
                for rows in (2, 5, 33) if size < 1000 else (2,):
                    whole = states(rows, 2, size, dtype=dtype)
                    for x in layouts(whole):
                        for reduce in (row_sums, row_norms, row_std, rms):
                            wanted = reduce(whole)
                            assert torch.equal(reduce(x), wanted)
                            for i in (0, rows - 1):
                                assert torch.equal(reduce(x[i : i + 1]), wanted[i : i + 1]), (reduce, size, rows, i)
                        assert torch.equal(rms(x, 2)[:1], rms(whole[:1], 2))
    finally:
        torch.set_num_threads(before)


def test_sums_are_sums() -> None:
    x = states(4, 3, 5)
    flat = x.flatten(1)
    torch.testing.assert_close(row_sums(x), flat.sum(1))
    torch.testing.assert_close(row_norms(x), flat.norm(dim=1))
    torch.testing.assert_close(row_std(x), flat.std(1, correction=0))
    torch.testing.assert_close(row_std(x, 1), flat.std(1))
    assert bool(row_std(x[:, 0, :1], 1).isnan().all()) and row_sums(x[:0]).shape == (0,)
    y = x[:1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(row_sums(y).sum(), y)
    assert torch.equal(slope, torch.ones_like(y))


@pytest.mark.parametrize("rowwise", [False, True])
@pytest.mark.parametrize("method", ["ggf", "dpmpp_sde12", "euler_maruyama"])
def test_a_source_serves_several_solves(method: str, rowwise: bool) -> None:
    """A sample of the third solve is its own, too, although adaptive methods draw for each sample until it is done,
    and whether those that are done leave the batch or not."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        return elementwise(x, t)

    score.rowwise = rowwise  # type: ignore[attr-defined]
    grid = {"steps": 12} if method == "euler_maruyama" else {"rtol": 0.2, "atol": 0.2}

    def third(rows: list[int]) -> tuple[Tensor, Tensor]:
        noise, x = scoresde.SampleNoise(7, indices=rows), states(5, 3)[rows]
        for _ in range(3):
            solution = scoresde.solve(SDE, score, x, method=method, noise=noise, **grid)
            x = solution.x
        return x, torch.as_tensor(solution.nfe)

    def stepped(rows: list[int]) -> Tensor:
        noise, x = scoresde.SampleNoise(7, indices=rows), states(5, 3)[rows]
        for _ in range(3):
            stepper = scoresde.Stepper(SDE, method, x, prediction="score", noise=noise, **grid)
            while not stepper.done:
                stepper.tell(elementwise(*stepper.ask()))
            x = stepper.x
        return x

    together, nfe = third(list(range(5)))
    torch.testing.assert_close(stepped(list(range(5))), together)
    assert method == "euler_maruyama" or nfe.unique().numel() > 1
    for row in (0, 4):
        assert same(third([row])[0][0], together[row])
