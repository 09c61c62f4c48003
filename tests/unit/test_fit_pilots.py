"""Pilots that a fit cannot learn from, or not well: each is named, by `tune` and by `fit_solver`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde.core.errors import InvalidArgumentError, NonFiniteError, ScoreSDEWarning

F64 = torch.float64
SDE = scoresde.VPSDE()
PILOT = 16
GAUSSIAN = scoresde.targets.Gaussian(torch.zeros(2, dtype=F64), torch.tensor([0.1, 1.0], dtype=F64))
TWO = scoresde.targets.GaussianMixture(
    torch.ones(2, dtype=F64), torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=F64), scales=0.1
)
X = SDE.prior_sample((PILOT, 2), generator=torch.Generator().manual_seed(3), dtype=F64)
ENDS = scoresde.solve(SDE, TWO.score(SDE), X, method="dop853", rtol=1e-8, atol=1e-8).x

FITS: dict[str, Callable[..., Any]] = {
    "tune": partial(scoresde.tune, SDE, candidates=[("dpm_2m", "log_snr"), ("ddim", None)]),
    "fit_solver": partial(scoresde.fit_solver, SDE, iterations=0),
}
every_fit = pytest.mark.parametrize("fit", FITS)


def warned(fit: str, score_fn: Any, **options: Any) -> list[str]:
    """The warnings of a fit."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        FITS[fit](score_fn=score_fn, **options)
    assert all(issubclass(w.category, ScoreSDEWarning) and w.filename == __file__ for w in caught)
    return [str(w.message) for w in caught]


@every_fit
def test_pilots_that_end_in_another_mode_are_named(fit: str) -> None:
    """As many as are told to have come from the other side, where each mode is the mirror image of the other."""
    flipped = ENDS.clone()
    flipped[:3] *= -1
    (message,) = warned(fit, TWO.score(SDE), evaluations=12, x=X, reference=flipped)
    assert message.startswith(f"3 of {PILOT} pilots end in another mode than their exact paths")
    flipped[2] *= -1  # two of 16 may
    assert not warned(fit, TWO.score(SDE), evaluations=12, x=X, reference=flipped)


@every_fit
def test_smooth_pilots_give_no_warning(fit: str) -> None:
    """Nor do errors that stand out and are small."""
    for steps in (4, 8):
        assert not warned(fit, GAUSSIAN.score(SDE), evaluations=steps, x=X)
    moved = ENDS.clone()
    moved[:3] += 0.2 * ENDS.std()
    assert not warned(fit, TWO.score(SDE), evaluations=12, x=X, reference=moved)


def with_far(count: int) -> Tensor:
    """The ends, of which some are moved far away."""
    return ENDS + 500 * X / X.norm(dim=1, keepdim=True) * (torch.arange(PILOT) < count)[:, None]


@every_fit
def test_exact_paths_that_end_far_away_are_named(fit: str) -> None:
    """Where they are few; many are a mode of the data."""
    for count, begins in ((1, "1 of 16 pilots ends on"), (2, "2 of 16 pilots end on"), (3, None)):
        found = warned(fit, TWO.score(SDE), evaluations=4, x=X, reference=with_far(count))
        messages = [message for message in found if "in another mode" not in message]
        assert len(messages) == (begins is not None) and all(message.startswith(str(begins)) for message in messages)


@pytest.mark.filterwarnings("ignore:.* of 16 pilots end")
def test_no_scale_is_measured_that_is_due_to_a_few() -> None:
    sde = scoresde.VPSDE(beta_max=40.0)
    score = TWO.score(sde)
    for count, scale in ((2, None), (3, 100)):
        given: dict[str, Any] = {"shape": X.shape, "dtype": F64, "reference": with_far(count)}
        assert scoresde.tune(sde, lambda x, t: score(x, t), 4, candidates=[("ddim", None)], **given).data_scale == scale


@every_fit
def test_pilots_that_are_not_finite_are_named(fit: str) -> None:
    for value in (torch.nan, torch.inf):
        bad = X.clone()
        bad[2, 1] = value
        with pytest.raises(NonFiniteError, match=r"`x` has NaN or infinite values in 1 of 16 samples \(first: \[2\]\)"):
            FITS[fit](score_fn=TWO.score(SDE), evaluations=4, x=bad)
        with pytest.raises(NonFiniteError, match=r"`reference` has NaN or infinite values in 1 of 16 samples"):
            FITS[fit](score_fn=TWO.score(SDE), evaluations=4, x=X, reference=bad)


@every_fit
def test_a_network_that_returns_nan_is_named(fit: str) -> None:
    """Everywhere, or for one sample below a level."""

    def once(x: Tensor, t: Tensor) -> Tensor:
        score = TWO.score(SDE)(x, t)
        score[0] = torch.where(t[0] < 0.5, torch.nan, score[0])
        return score

    for score_fn in (lambda x, t: torch.full_like(x, torch.nan), once):
        with pytest.raises(NonFiniteError, match="NaN or inf"):
            FITS[fit](score_fn=score_fn, evaluations=4, x=X)


def test_a_network_that_is_not_differentiable() -> None:
    """`tune` needs no gradient; `fit_solver` says how to do without."""

    given: dict[str, Any] = {"x": X, "reference": ENDS, "iterations": 3}
    rounded = lambda x, t: torch.from_numpy(TWO.score(SDE)(x, t).detach().numpy())  # noqa: E731
    for score_fn in (torch.no_grad()(TWO.score(SDE).__call__), rounded):
        assert FITS["tune"](score_fn=score_fn, evaluations=2, x=X).evaluations == 2
        with pytest.raises(InvalidArgumentError, match=r"The score function has no gradient .* pass gradient=False"):
            scoresde.fit_solver(SDE, score_fn, 2, **given)
        fitted = scoresde.fit_solver(SDE, score_fn, 2, gradient=False, **given | {"iterations": 6})
        assert fitted.fitted.rms <= fitted.default.rms and fitted.cost.gradients == 0
