"""Arguments that functions away from `solve` cannot use are refused by errors of the package that name them.

`python -m tools junk` replaces every argument of every public function; here is one example of each kind of check.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import scoresde
from scoresde import VPSDE, ScoreModel, discrete, fit_grid, grids, losses, solve, targets, training
from scoresde.core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError, ScoreSDEError

pytestmark = pytest.mark.timeout(60)

V, T = InvalidArgumentError, InvalidTypeError
SDE = VPSDE()
GAUSSIAN = targets.Gaussian(torch.zeros(2), torch.eye(2))
SCORE = GAUSSIAN.score(SDE)
X = torch.linspace(-1.0, 1.0, 8).reshape(4, 2)
MODEL = ScoreModel(lambda x, t: 0.5 * x, SDE, "noise")
ROWS = training.Arrays(X)
RECIPE = training.Recipe(steps=1, batch_size=4)
MANY: Any = 10**9


def net() -> scoresde.nets.MLP:
    return scoresde.nets.MLP((2,), channels=8, blocks=1, width=8)


def trainer(**changes: Any) -> Any:
    stream = training.Stateless(training.Batches(ROWS, 4))
    given = {"loss": losses.denoising, "stream": stream, "recipe": RECIPE, "progress": False}
    return training.Trainer(ScoreModel(net(), SDE, "noise"), **{**given, **changes})


def fitted(**changes: Any) -> Any:
    return fit_grid(SDE, SCORE, 3, "ddim", **{"pilot": 4, "iterations": 0, **changes})


CASES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: fitted(starts=torch.tensor(1.0)), V, r"`starts\[0\]` must have shape"),
    (lambda: fitted(pilot=MANY), V, "`pilot` must be at most 1000000"),
    (lambda: scoresde.FittedGrid.load("no/such/grid.json"), scoresde.CorruptCheckpointError, "is not a fitted grid"),
    (lambda: trainer(stream=None), T, "`stream` must be a scoresde.training.Batches"),
    (lambda: trainer(folder=""), V, "`folder` must be a path, got an empty one"),
    (lambda: trainer(loss=lambda *_: torch.ones(4)).run(), V, "carries no gradient"),
    (lambda: training.Batches(ROWS, 4, rank=2, world=2), V, "`rank` must be at most 1, got 2"),
    (lambda: losses.denoising(MODEL, X[:, :0]), V, "`x0` must hold events of at least one number"),
    (lambda: losses.prior_kl(X, 1.0, -torch.ones(()), SDE.prior), V, "`sigma` must be positive"),
    *((lambda n=n: solve(SDE, SCORE, X, **{n: "no"}), T, f"`{n}` must be") for n in ("denoise", "throw")),
    (lambda: solve(SDE, SCORE, X, method="pc", progress=1), T, "`progress` must be True or False, got 1"),
    (lambda: scoresde.variational_bound(SDE, SCORE, X, draws=MANY), V, "`draws` must be at most 1000000"),
    (lambda: scoresde.simulate(SDE, X, steps=MANY), V, "`steps` must be at most 10000000"),
    (lambda: discrete.BetaChain.linear(MANY), V, "`n` must be at most 1000000"),
    (lambda: SDE.prior_sample((MANY, MANY)), V, "`shape` must have at most"),
    (lambda: scoresde.check_score(SDE, SCORE, X[:, :0]), V, "`data` must hold events of at least"),
    (lambda: SDE.sigma(-1.0), V, "`t` must be in"),
    (lambda: grids.karras(SDE, 1.0, 0.1, 0), V, "`steps` must be at least 1"),
    (lambda: net()(torch.zeros(4, 3), torch.zeros(4)), V, r"`x` must be \(batch, \*\(2,\)\)"),
    (lambda: scoresde.bits_per_dim(torch.tensor(math.nan), (2,)), NonFiniteError, "`log_prob` has 1 NaN"),
    *((lambda p=p: scoresde.zoo.save(MODEL, p), V, "`path` must be a path") for p in ("a\0b", "\ud800", "")),
]


def test_it_is_refused_by_name() -> None:
    for call, error, message in CASES:
        with pytest.raises(error, match=message) as caught:
            call()
        assert isinstance(caught.value, ScoreSDEError), message
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500, message
