"""What the score function receives besides x and t in a fit: passed or bound, for all samples or for each."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import ScoreModel, guidance
from scoresde.core.errors import InvalidArgumentError

F64 = torch.float64
SDE = scoresde.VPSDE()
PILOT = 6
GAUSSIAN = scoresde.targets.Gaussian(torch.zeros(2, dtype=F64), torch.tensor([0.1, 1.0], dtype=F64))
RING = scoresde.targets.GaussianMixture(
    torch.ones(4, dtype=F64), torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=F64), scales=0.2
)
X = SDE.prior_sample((PILOT, 2), generator=torch.Generator().manual_seed(3), dtype=F64)
MOVES = torch.linspace(-1.0, 1.0, PILOT, dtype=F64)


def net(x: Tensor, t: Tensor, move: Tensor) -> Tensor:
    """The noise of data that a label moves; it takes one label per sample and no other number of them."""
    if len(move) != len(x):
        raise AssertionError(f"{len(move)} labels of {len(x)} samples")
    moved = SDE.alpha(t)[:, None] * move[:, None]
    return -SDE.sigma(t)[:, None] * RING.score(SDE)(x - moved, t)


def model(**options: Any) -> ScoreModel:
    return ScoreModel(net, SDE, "noise", event_shape=(2,), **options)


def bare(x: Tensor, t: Tensor, move: Tensor) -> Tensor:
    return -net(x, t, move) / SDE.sigma(t)[:, None]


PAIRS = [("ddim", None), ("dpm_2m", "vp_quadratic")]
FITS: dict[str, Callable[..., Any]] = {
    "tune": partial(scoresde.tune, SDE, evaluations=3, candidates=PAIRS),
    "fit_grid": partial(scoresde.fit_grid, SDE, steps=2, method="ddim", iterations=3, starts=["quick"], reference=10),
    "fit_solver": partial(scoresde.fit_solver, SDE, evaluations=2, iterations=0, reference=10),
    "fit_start": partial(scoresde.fit_start, SDE, gaussian=GAUSSIAN, method="ddim", steps=3, levels=4, rtol=0.1),
}
every_fit = pytest.mark.parametrize("fit", FITS)


def made(fit: str, score_fn: Any, **context: Any) -> list[float]:
    """The numbers of a fit on X, to compare."""
    found = FITS[fit](score_fn=score_fn, x=X, **context)
    if hasattr(found, "times"):
        return [*found.times, found.fitted.rms, found.fitted.median]
    return [found.t, found.warm.rms]


def same(a: list[float], b: list[float]) -> bool:
    return a == pytest.approx(b, rel=1e-6)


@every_fit
def test_labels_of_the_samples_may_be_bound(fit: str) -> None:
    """Where each half of the pilot is solved, a label goes with its sample."""
    wanted = made(fit, model(), context={"move": MOVES})
    bound = {
        "model": model(context={"move": MOVES}),
        "conditional": guidance.conditional(model(), move=MOVES),
        "partial": partial(bare, move=MOVES),
        "closure": lambda x, t: bare(x, t, MOVES),
    }
    for how, score_fn in bound.items():
        assert same(made(fit, score_fn), wanted), how
    none, one = (guidance.conditional(model(), move=move) for move in (0.0, MOVES))
    passed = made(fit, guidance.classifier_free(model(), none, 1.5), context={"move": MOVES})
    assert same(made(fit, guidance.classifier_free(one, none, 1.5)), passed)


def test_a_fit_by_gradients_sees_the_labels_of_the_samples() -> None:
    bound, passed = (
        scoresde.fit_solver(SDE, score_fn, 2, x=X, iterations=3, reference=10, **context)
        for score_fn, context in ((model(context={"move": MOVES}), {}), (model(), {"context": {"move": MOVES}}))
    )
    assert same([*bound.times, bound.fitted.rms], [*passed.times, passed.fitted.rms])


@every_fit
def test_one_label_is_that_of_all_samples(fit: str) -> None:
    wanted = made(fit, model(), context={"move": torch.full((PILOT,), 0.5, dtype=F64)})
    one = {"move": torch.full((1,), 0.5, dtype=F64)}
    assert same(made(fit, model(), context=one), wanted)
    assert same(made(fit, model(context=one)), wanted)
    assert same(made(fit, guidance.conditional(model(), move=0.5)), wanted)


@every_fit
def test_what_is_no_tensor_is_passed_on(fit: str) -> None:
    seen = []

    def noted(x: Tensor, t: Tensor, more: Any, name: Any, none: Any) -> Tensor:
        assert (name, none, more["kind"]) == ("a name", None, "b")
        seen.append((len(x), len(more["state"]), tuple(more["state"].shape[1:])))
        return net(x, t, more["parts"][0])

    more = {"parts": [MOVES, None], "kind": "b", "state": torch.ones(1, 3, 5)}
    given = {"more": more, "name": "a name", "none": None}
    FITS[fit](score_fn=ScoreModel(noted, SDE, "noise", event_shape=(2,)), x=X, context=given)
    assert all(rows == states and rest == (3, 5) for rows, states, rest in seen)


@every_fit
def test_other_values_are_refused_before_the_first_call(fit: str) -> None:
    calls = []

    def counted(x: Tensor, t: Tensor, move: Tensor) -> Tensor:
        calls.append(len(x))
        return net(x, t, move)

    score = ScoreModel(counted, SDE, "noise", event_shape=(2,))
    refused: list[tuple[Any, str]] = [
        (3, "got int; try torch.tensor([3]), the same for all samples"),
        (torch.tensor(3), "got torch.int64 (); try context['move'][None], the same for all samples"),
        ([1.0] * PILOT, "got list; try torch.as_tensor(context['move'])"),
        (MOVES.numpy(), "try torch.from_numpy(context['move'])"),
        (MOVES[:4], f"`context['move']` has 4 rows; the batch has {PILOT}"),
    ]
    for value, message in refused:
        for make in (FITS[fit], partial(scoresde.solve, SDE, method="ddim", steps=2)):
            with pytest.raises(InvalidArgumentError, match=re.escape(message)):
                make(score_fn=score, x=X, context={"move": value})
    assert not calls


@pytest.mark.parametrize("declared", [True, False])
def test_halves_are_solved_alone_where_samples_are_independent(declared: bool) -> None:
    """What it costs not to be ``rowwise``."""
    rows = []

    class Counted:
        rowwise, event_shape = declared, (2,)

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            rows.append(len(x))
            return RING.score(SDE)(x, t)

    FITS["fit_solver"](score_fn=Counted(), x=X)
    assert (PILOT // 2 in rows) == declared
