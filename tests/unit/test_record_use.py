"""Records in a solve that differs from what they were made with: budget, context and prediction, as far as known."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import ScoreModel, guidance, solve
from scoresde.core.errors import CorruptCheckpointError, ScoreSDEWarning
from scoresde.tuning import FittedGrid, FittedSolver, Tuned

SDE = scoresde.VPSDE()
X = SDE.prior_sample((4, 2), generator=torch.Generator().manual_seed(0))
MOVE = torch.tensor([0.5])


def net(x: Tensor, t: Tensor, move: Tensor | None = None, size: Tensor | None = None) -> Tensor:
    return 0.1 * x if move is None else 0.1 * (x - move[:, None])


def model(prediction: str = "noise", **context: Any) -> ScoreModel:
    return ScoreModel(net, SDE, prediction, event_shape=(2,), context=context)


def bare(x: Tensor, t: Tensor, move: Tensor | None = None) -> Tensor:
    return -net(x, t, None if move is None else move.expand(len(x)))


def made(maker: str, score_fn: Any, **options: Any) -> FittedGrid:
    given = {"x": X, **options}
    if maker == "tune":
        return scoresde.tune(SDE, score_fn, 3, candidates=[("ddim", None)], **given)
    if maker == "fit_grid":
        return scoresde.fit_grid(SDE, score_fn, 3, "ddim", iterations=0, reference=6, **given)
    return scoresde.fit_solver(SDE, score_fn, 3, iterations=0, reference=6, **given)


def warned(record: FittedGrid, score_fn: Any, **options: Any) -> list[str]:
    """The warnings of a solve."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solve(SDE, score_fn, X, method=record, **options)
    assert all(issubclass(w.category, ScoreSDEWarning) and w.filename == __file__ for w in caught)
    return [str(w.message) for w in caught]


MAKERS = {"tune": Tuned, "fit_grid": FittedGrid, "fit_solver": FittedSolver}
WITH = made("tune", model(), context={"move": MOVE})
WITHOUT = made("tune", model())


@pytest.mark.parametrize("maker", MAKERS)
def test_a_record_has_the_names_and_the_prediction(maker: str) -> None:
    record = made(maker, model("v", size=MOVE), context={"move": MOVE})
    assert type(record) is MAKERS[maker]
    assert (record.context, record.prediction) == (("move", "size"), "v")
    assert solve(SDE, model("v"), X, method=record, context={"move": MOVE, "size": MOVE}).evaluations == 3
    again = FittedGrid.of(record.fields(), "record.json")
    assert (again.context, again.prediction) == (record.context, record.prediction)
    assert made(maker, bare, context={"move": None}).context == ()
    assert made(maker, bare).prediction == ""


BOUND = {
    "passed": (model(), {"context": {"move": MOVE}}),
    "model": (model(move=0.5), {}),
    "conditional": (guidance.conditional(model(), move=0.5), {}),
    "guided": (guidance.classifier_free(guidance.conditional(model(), move=0.5), model(), 2.0), {}),
    "clipped": (scoresde.scores.Clip(model(move=0.5), -9.0, 9.0), {}),
    "partial": (partial(bare, move=MOVE), {}),
}


@pytest.mark.parametrize("first", BOUND)
def test_passed_or_bound_is_the_same(first: str) -> None:
    score_fn, options = BOUND[first]
    record = made("tune", score_fn, **options)
    assert record.context == ("move",)
    for second, (score_fn, options) in BOUND.items():
        assert not warned(record, score_fn, **options), second


def test_a_context_that_is_missing() -> None:
    for score_fn, options in ((model(), {}), (model(), {"context": {"move": None}}), (bare, {})):
        (message,) = warned(WITH, score_fn, **options)
        assert message.startswith("`method` was made with the context 'move', which is missing here.")
    assert not warned(WITH, lambda x, t: bare(x, t, MOVE))  # which may hold it
    with pytest.warns(ScoreSDEWarning, match="`grid` was made with the context 'move'"):
        solve(SDE, model(), X, method="ddim", grid=WITH)


def test_a_context_that_is_added() -> None:
    for score_fn, options in BOUND.values():
        (message,) = warned(WITHOUT, score_fn, **options)
        assert message.startswith("`method` was made without the context 'move', which is given here. It holds")
    (message,) = warned(WITH, model(), context={"size": torch.ones(4)})
    assert "with the context 'move', which is missing here, and without the context 'size', which" in message


def test_another_prediction() -> None:
    wanted = "`method` was made for a network that predicts 'noise', while this one predicts 'v'. It holds for"
    for score_fn in (model("v"), scoresde.scores.Clip(model("v_prediction"), -9.0, 9.0)):
        (message,) = warned(WITHOUT, score_fn)
        assert message.startswith(wanted)
    assert not warned(WITHOUT, model("epsilon")) and not warned(WITHOUT, bare)
    assert not warned(made("tune", bare), model())


def test_a_record_that_does_not_know_says_nothing() -> None:
    fields = {name: value for name, value in WITH.fields().items() if name not in ("context", "prediction")}
    old = FittedGrid.of(fields, "a file of before")
    assert (old.context, old.prediction) == (None, "")
    for score_fn in (model(), model("v"), model(move=0.5)):
        assert not warned(old, score_fn)


def test_other_fields_are_refused() -> None:
    for fields in ({"context": "move"}, {"context": [1]}, {"prediction": 3}):
        with pytest.raises(CorruptCheckpointError, match=next(iter(fields))):
            FittedGrid.of({**WITH.fields(), **fields}, "record.json")
