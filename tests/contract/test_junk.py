"""Arguments that functions away from `solve` cannot use are refused by errors of the package that name them.

`python -m benchmarks junk` replaces every argument of every public function; here are examples of each kind of check.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import (
    VPSDE,
    InvalidArgumentError,
    InvalidTypeError,
    NonFiniteError,
    ScoreFnError,
    ScoreModel,
    ScoreSDEError,
    discrete,
    fit_grid,
    fit_start,
    grids,
    guidance,
    inverse,
    losses,
    solve,
    solvers,
    targets,
    testing,
    training,
    zoo,
)

pytestmark = pytest.mark.timeout(60)

SDE = VPSDE()
GAUSSIAN = targets.Gaussian(torch.zeros(2), torch.eye(2))
SCORE = GAUSSIAN.score(SDE)
X = torch.linspace(-1.0, 1.0, 8).reshape(4, 2)
MODEL = ScoreModel(lambda x, t: 0.5 * x, SDE, "noise")
NODE = SDE.nodes(torch.full((4,), 0.5))
ROWS = training.Arrays(X)
LINE = targets.GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]]), scales=0.5)
CLASSIFIER = guidance.NoisyClassifier(scoresde.nets.Classifier((1, 8, 8), classes=10, channels=8, blocks=1, width=8))
BATCHES = training.Batches(ROWS, 4)
RECIPE = training.Recipe(steps=1, batch_size=4)
HUGE = 10**400  # an integer that no float holds


def nested() -> Tensor:
    return torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)


def net() -> scoresde.nets.MLP:
    return scoresde.nets.MLP((2,), channels=8, blocks=1, width=8)


def trainer(**changes: Any) -> Any:
    given = {"loss": losses.denoising, "stream": training.Stateless(BATCHES), "recipe": RECIPE, "progress": False}
    return training.Trainer(ScoreModel(net(), SDE, "noise"), **{**given, **changes})


def fitted(**changes: Any) -> Any:
    return fit_grid(SDE, SCORE, 3, "ddim", **{"pilot": 4, "iterations": 0, **changes})


def bound(**changes: Any) -> Any:
    return scoresde.variational_bound(SDE, SCORE, X, **{"draws": 4, **changes})


def classifier(kwargs: Any) -> Any:
    return training.train_classifier(
        training.Arrays(torch.zeros(4, 1, 8, 8), torch.arange(4)), recipe=RECIPE, kwargs=kwargs
    )


def transition(**changes: Any) -> Any:
    return losses.transition_at(SCORE, X, X, **{"sde": SDE, "t": 0.5, "step": 0.1, **changes})


CASES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    # fitted grids and starts
    (lambda: fitted(t_end="abc"), InvalidTypeError, "`t_end` must be a number, got 'abc'"),
    (lambda: fitted(t_start=HUGE), InvalidArgumentError, "`t_start` must be a finite number"),
    (lambda: fitted(x=5), InvalidTypeError, "`x` must be a tensor"),
    (lambda: fitted(starts=torch.tensor(1.0)), InvalidArgumentError, r"`starts\[0\]` must have shape"),
    (lambda: fitted(reference=torch.zeros(4, 2).to_sparse()), InvalidTypeError, "`reference` must be a dense tensor"),
    (lambda: fitted(gradient="no"), InvalidTypeError, "`gradient` must be True or False, got 'no'"),
    (lambda: fitted(pilot=10**9), InvalidArgumentError, "`pilot` must be at most 1000000"),
    (lambda: fit_start(SDE, SCORE, GAUSSIAN, levels=10**9), InvalidArgumentError, "`levels` must be at most 100000"),
    (lambda: scoresde.FittedGrid.load("no/such/grid.json"), scoresde.CorruptCheckpointError, "is not a fitted grid"),
    # training
    (lambda: trainer(stream=None), InvalidTypeError, "`stream` must be a scoresde.training.Batches"),
    (lambda: trainer(recipe="quick"), InvalidTypeError, "`recipe` must be a scoresde.training.Recipe, got str 'quick'"),
    (lambda: trainer(loss=5), InvalidTypeError, "`loss` must be callable"),
    (lambda: trainer(callbacks=[5]), InvalidTypeError, r"`callbacks\[0\]` must be a scoresde.training.Every"),
    (lambda: trainer(folder=""), InvalidArgumentError, "`folder` must be a path, got an empty one"),
    (lambda: trainer(resume="no"), InvalidTypeError, "`resume` must be True or False"),
    (lambda: training.Arrays(np.zeros((4, 2))), InvalidTypeError, "`values` must be a tensor"),  # type: ignore[arg-type]
    (lambda: training.Arrays(X, labels=[0, 1, 2, 3]), InvalidTypeError, "`labels` must be integers"),  # type: ignore[arg-type]
    (lambda: training.Batches(None, 4), InvalidTypeError, "`source` must be a scoresde.training.Source"),  # type: ignore[arg-type]
    (lambda: training.Batches(ROWS, 4, data_range=True), InvalidTypeError, "`data_range` must be"),  # type: ignore[arg-type]
    (lambda: training.Batches(ROWS, 4, rank=math.nan), InvalidTypeError, "`rank` must be an integer, got nan"),  # type: ignore[arg-type]
    (lambda: training.Batches(ROWS, 4, rank=2, world=2), InvalidArgumentError, "`rank` must be at most 1, got 2"),
    (lambda: training.Batches(ROWS, 4, dequantise="no"), InvalidTypeError, "`dequantise` must be True or False"),  # type: ignore[arg-type]
    (lambda: training.Recipe(optimizer=[1, 2]), InvalidArgumentError, r"`optimizer`: unknown name \[1, 2\]"),  # type: ignore[arg-type]
    (lambda: training.Stateless(None), InvalidTypeError, "`batches` must be a scoresde.training.Batches"),  # type: ignore[arg-type]
    (lambda: training.train("edm", ROWS), InvalidTypeError, "`preset` must be a scoresde.training.Preset"),  # type: ignore[arg-type]
    (lambda: training.Folder("a\0b"), InvalidArgumentError, "`path` must be a path"),
    (lambda: training.Folder("x" * 5000), InvalidArgumentError, "`path` must be a path"),
    (lambda: training.read(b"digits"), InvalidTypeError, "`data` must be a name, a path"),  # type: ignore[arg-type]
    # losses
    (lambda: losses.denoising(MODEL, X, 0), InvalidTypeError, "`generator` must be a torch.Generator, got int"),  # type: ignore[arg-type]
    (lambda: losses.vdm(MODEL, X, "a"), InvalidTypeError, "`generator` must be a torch.Generator, got str"),  # type: ignore[arg-type]
    (lambda: losses.look(MODEL, X, None, NODE), InvalidTypeError, "`noise` must be a floating-point tensor"),  # type: ignore[arg-type]
    (lambda: losses.look(MODEL, X, X, 0.5), InvalidTypeError, "`node` must be a Node"),  # type: ignore[arg-type]
    (lambda: losses.gaussian_kl(X, HUGE, 0.0), InvalidArgumentError, "`log_variance` must be a finite number"),
    (lambda: losses.chain_term(None, None), InvalidTypeError, "`seen` must be what"),  # type: ignore[arg-type]
    # flags
    (lambda: solve(SDE, SCORE, X, denoise="no"), InvalidTypeError, "`denoise` must be True or False, got 'no'"),  # type: ignore[arg-type]
    (lambda: solve(SDE, SCORE, X, differentiable="no"), InvalidTypeError, "`differentiable` must be"),  # type: ignore[arg-type]
    (lambda: solve(SDE, SCORE, X, throw=X), InvalidTypeError, "`throw` must be True or False, got a torch.float32"),  # type: ignore[arg-type]
    (lambda: solve(SDE, SCORE, X, progress=1), InvalidTypeError, "`progress` must be True or False, got 1"),  # type: ignore[arg-type]
    (lambda: scoresde.load("digits", verify="no"), InvalidTypeError, "`verify` must be True or False"),  # type: ignore[arg-type]
    # counts have limits
    (lambda: bound(draws=10**9), InvalidArgumentError, "`draws` must be at most 1000000, got 1000000000"),
    (lambda: bound(steps=10**9), InvalidArgumentError, "`steps` must be at most 1000000"),
    (lambda: bound(draws=HUGE), InvalidArgumentError, "`draws` must be at most 1000000, got 1000"),
    (lambda: scoresde.decoder_bound(SDE, SCORE, X, draws=10**9), InvalidArgumentError, "`draws` must be at most"),
    (
        lambda: scoresde.discrete_log_likelihood(SDE, SCORE, torch.ones(4, 2), draws=10**9),
        InvalidArgumentError,
        "`draws` must be at most",
    ),
    (lambda: scoresde.log_likelihood(SDE, SCORE, X, probes=10**9), InvalidArgumentError, "`probes` must be at most"),
    (lambda: scoresde.density_profile(SDE, SCORE, X, points=10**9), InvalidArgumentError, "`points` must be at most"),
    (lambda: scoresde.simulate(SDE, X, steps=10**9), InvalidArgumentError, "`steps` must be at most 10000000"),
    (lambda: scoresde.check_score(SDE, SCORE, X, levels=10**9), InvalidArgumentError, "`levels` must be at most 1000"),
    (lambda: discrete.BetaChain.linear(10**9), InvalidArgumentError, "`n` must be at most 1000000"),
    (lambda: SDE.prior_sample((10**9, 10**9)), InvalidArgumentError, "`shape` must have at most"),
    (lambda: scoresde.dequantize(torch.zeros(1, 2), levels=HUGE), InvalidArgumentError, "`levels` must be at most"),
    # functions, contexts, devices, intervals
    (lambda: scoresde.check_score(SDE, SCORE, X, context=5), InvalidTypeError, "`context` must be a mapping"),  # type: ignore[arg-type]
    (lambda: SDE.prior_sample((2, 2), device=5.0), InvalidTypeError, "`device` must be a torch device"),  # type: ignore[arg-type]
    (lambda: SDE.prior_sample((2, 2), generator=0), InvalidTypeError, "`generator` must be"),  # type: ignore[arg-type]
    (lambda: SDE.perturb(X, 0.5, "noise"), InvalidTypeError, "`noise` must be a floating-point tensor"),  # type: ignore[arg-type]
    (lambda: SDE.sigma(-1.0), InvalidArgumentError, "`t` must be in"),
    (lambda: grids.karras(SDE, 1.0, 0.1, 0), InvalidArgumentError, "`steps` must be at least 1"),
    (lambda: grids.log_snr(None, 1.0, 0.1, 3), InvalidTypeError, "`sde` must be an affine process"),
    (lambda: scoresde.SampleNoise(None), InvalidTypeError, "`seeds` must be a sequence"),  # type: ignore[arg-type]
    (lambda: scoresde.BatchNoise(0), InvalidTypeError, "`generator` must be a torch.Generator"),  # type: ignore[arg-type]
    (lambda: scoresde.models.within(SDE, (1.0, "a")), InvalidTypeError, "`limits` must be a number"),  # type: ignore[arg-type]
    (lambda: GAUSSIAN.flow_map(X, "vp", 1.0, 0.5), InvalidTypeError, "`sde` must be an affine process"),  # type: ignore[arg-type]
    (lambda: targets.GaussianMixture(["a"], X), InvalidTypeError, "`weights` must be numbers"),  # type: ignore[arg-type]
    (lambda: inverse.Conditioned(SCORE, None, None), InvalidTypeError, "`measurement` must be"),  # type: ignore[arg-type]
    (lambda: inverse.gaussian_kernel(1e308), InvalidArgumentError, "`std` must be in"),
    (lambda: guidance.conditional(lambda x, t, label: x, label=HUGE), InvalidArgumentError, "`label` must be at most"),
    (lambda: testing.end_of("ddim", None, SCORE, X, [1.0, 0.5]), InvalidTypeError, "`sde` must be a process"),  # type: ignore[arg-type]
    (lambda: testing.slopes(5, 5), InvalidArgumentError, "`errors` must be"),  # type: ignore[arg-type]
    (lambda: scoresde.BatchNoise.seeded(0, torch.device("meta")), InvalidArgumentError, "`device` must hold data"),
    (lambda: grids.karras(solvers.DDIM(), 1.0, 0.1, 3), InvalidTypeError, "`sde` must be an affine process"),  # type: ignore[arg-type]
    (lambda: targets.GaussianMixture(np.array([1j]), X[:1], scales=1.0), InvalidTypeError, "`weights` must be real"),  # type: ignore[arg-type]
    (lambda: inverse.Exact(GAUSSIAN, (math.nan, 1)), InvalidTypeError, "`scores` must be what `ready` makes"),  # type: ignore[arg-type]
    (lambda: scoresde.GaussianStart(GAUSSIAN, SDE, 0.5, (1, 2)), InvalidTypeError, "`bound` must be a number"),  # type: ignore[arg-type]
    (
        lambda: scoresde.GaussianSDE(lambda t: nested(), torch.sin, t_min=0.1, t_max=1.0),
        InvalidTypeError,
        "must be a dense tensor",
    ),
    (
        lambda: testing.mixture_flow_map(LINE, X[:, :1] * math.inf, SDE, 1.0, 0.5),
        InvalidArgumentError,
        "`x` must be finite",
    ),
    # networks
    (lambda: net()(torch.zeros(4, 3), torch.zeros(4)), InvalidArgumentError, r"`x` must be \(batch, \*\(2,\)\)"),
    (lambda: CLASSIFIER(X, torch.ones(4), torch.ones(4)), InvalidArgumentError, r"`x` must be \(batch, \*\(1, 8, 8"),
    (lambda: scoresde.nets.MLP([10**400]), InvalidArgumentError, r"`event_shape\[0\]` must be at most"),
    (lambda: classifier({"a": 1}), InvalidArgumentError, "`kwargs`: unknown name 'a'"),
    (lambda: classifier({1: 2}), InvalidArgumentError, "`kwargs`: unknown name 1"),
    # a loss that cannot be minimised
    (lambda: trainer(loss=VPSDE), InvalidTypeError, "`loss` must be a function"),
    (lambda: trainer(loss=lambda *_: torch.ones(4)).run(), InvalidArgumentError, "carries no gradient"),
    (lambda: RECIPE.optimizer_of(torch.ones(2, requires_grad=True)), InvalidTypeError, "`parameters` must be those"),  # type: ignore[arg-type]
    (
        lambda: losses.denoising(MODEL, X, reduction=lambda v: v.mean(0)),  # type: ignore[arg-type]
        InvalidArgumentError,
        r"`reduction\(errors\)` must have shape \(4,\)",
    ),
    (lambda: losses.prior_kl(X, 1.0, -torch.ones(()), SDE.prior), InvalidArgumentError, "`sigma` must be positive"),
    (lambda: transition(step=2.0**63), InvalidArgumentError, "`step` must be in"),
    # nothing to compute with
    (lambda: losses.denoising(MODEL, X[:, :0]), InvalidArgumentError, "`x0` must hold events of at least one number"),
    (lambda: scoresde.check_score(SDE, SCORE, X[:, :0]), InvalidArgumentError, "`data` must hold events of at least"),
    (lambda: targets.Gaussian.fit(X[:, :0]), InvalidArgumentError, "`data` must hold events of at least one number"),
    (
        lambda: testing.work_precision("ddim", GAUSSIAN, SDE, x=X[:0]),
        InvalidArgumentError,
        "`x` must have at least one sample",
    ),
    # densities that are no numbers
    (lambda: scoresde.bits_per_dim(torch.tensor(math.nan), (2,)), NonFiniteError, "`log_prob` has 1 NaN"),
    # paths
    (lambda: zoo.save(MODEL, None), InvalidTypeError, "`path` must be a path"),  # type: ignore[arg-type]
    (lambda: zoo.save(MODEL, 5), InvalidTypeError, "`path` must be a path"),  # type: ignore[arg-type]
    (lambda: zoo.save(MODEL, b"x"), InvalidTypeError, "`path` must be a path"),  # type: ignore[arg-type]
    (lambda: zoo.save(MODEL, "a\0b"), InvalidArgumentError, "`path` must be a path"),
    (lambda: zoo.save(MODEL, "\ud800"), InvalidArgumentError, "`path` must be a path"),
    (lambda: zoo.save(MODEL, ""), InvalidArgumentError, "`path` must be a path, got an empty one"),
    # tensors that are not dense
    (lambda: solve(SDE, SCORE, nested()), InvalidTypeError, "`x` must be a dense tensor with data"),
    (lambda: SDE.alpha(nested()), InvalidTypeError, "`t` must be a dense tensor with data"),
    (
        lambda: solve(SDE, SCORE, X, save_at=torch.zeros(2, device="meta")),
        InvalidTypeError,
        "`save_at` must be a dense",
    ),
    (lambda: solve(SDE, SCORE, X, grid=torch.ones(2, device="meta")), InvalidTypeError, "`grid` must be a dense"),
    (
        lambda: scoresde.interpolate(X, 2 + X, torch.ones(2, device="meta")),
        InvalidTypeError,
        "`weights` must be a dense tensor",
    ),
    # scores that are not dense, or of a dtype without arithmetic
    (lambda: solve(SDE, lambda x, t: x.to_sparse(), X), ScoreFnError, "must return a dense tensor, like x, got"),
    (lambda: solve(SDE, lambda x, t: x.to(torch.float8_e4m3fn), X), ScoreFnError, "must return torch.float32, like x"),
    (lambda: solve(SDE, lambda x, t: nested(), X), ScoreFnError, "must return a dense tensor, like x, got"),
    (lambda: bound_of(lambda x, t: x.to_sparse()), ScoreFnError, "must return a dense tensor"),
]


def bound_of(score_fn: Callable[..., Any]) -> Any:
    return scoresde.chain_bound(discrete.BetaChain.linear(4), score_fn, X)


@pytest.mark.parametrize(("call", "error", "message"), CASES, ids=[message[:40] for *_, message in CASES])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_it_is_refused_by_name(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, ScoreSDEError)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_refused_path_leaves_nothing_in_the_working_directory(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    model = ScoreModel(net(), SDE, "noise", event_shape=(2,))
    with pytest.raises(InvalidArgumentError, match="`path` must be a path, got an empty one"):
        zoo.save(model, "", kwargs={"channels": 8, "blocks": 1, "width": 8})
    assert os.listdir(tmp_path) == []


def test_bits_of_failed_samples_are_kept_if_asked_for() -> None:
    bits = scoresde.bits_per_dim(torch.tensor([math.nan, 0.0]), (2,), throw=False)
    assert bits.isnan().tolist() == [True, False]


def test_a_mixture_of_data_points_can_be_fitted_as_a_mixture() -> None:
    data = torch.cat([X - 9, X + 9])
    assert type(targets.Empirical.fit(data, 2)) is targets.GaussianMixture
