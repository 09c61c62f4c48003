"""The scale of a control variate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .._checks import MOST_DRAWS, check_integer
from ..errors import InvalidArgumentError
from ..sdes import SDE
from ..targets import Gaussian, GaussianMixture
from .flow import log_likelihood

_LEAST = 1e-6  # of the variance of the estimates, what a control must have to be of any use


def fit_control_scale(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    control: Gaussian | GaussianMixture,
    x: Tensor,
    *,
    probes: int = 16,
    seed: int = 0,
    **options: Any,
) -> float:
    r"""The ``control_scale`` of `log_likelihood` that leaves the smallest variance on a pilot.

    With A the paths of a sample without the control, and B what the control alone contributes to them,

    .. math:: c^* = \frac{\sum\mathrm{Cov}(A, B)}{\sum\mathrm{Var}(B)},

    summed over samples. A scale that depends on the probes makes a bias: fit it with another seed than the solve that
    it is for, and preferably on other samples too.

    Args:
        sde, score_fn, control: as for `log_likelihood`.
        x: the pilot's data, ``(batch, *event)``, ten samples or so.
        probes, seed: for the pilot's two solves, which share their probes.
        **options: of `log_likelihood`.

    Returns:
        c; 1 where the control does not change the estimates.

    Raises:
        InvalidArgumentError: an argument does not fit.

    Example:
        >>> sde, mean = scoresde.VPSDE(), torch.zeros(2, dtype=torch.float64)
        >>> target = scoresde.targets.Gaussian(mean, torch.tensor([[1.0, 0.4], [0.4, 0.5]]))
        >>> x = target.sample(4, generator=torch.Generator().manual_seed(0)).double()
        >>> round(fit_control_scale(sde, target.score(sde), target, x), 3)
        1.0
    """
    check_integer("probes", probes, low=2, high=MOST_DRAWS)
    if control is None:
        raise InvalidArgumentError("`control` must be a targets.Gaussian or targets.GaussianMixture, got None.")
    paths = [
        log_likelihood(sde, score_fn, x, probes=probes, seed=seed, control=law, **options).paths.detach()
        for law in (None, control)
    ]
    plain, known = (p - p.mean(1, keepdim=True) for p in paths)
    away = plain - known
    if not bool(away.square().sum() > _LEAST * plain.square().sum()):
        return 1.0
    return float((plain * away).sum() / away.square().sum())
