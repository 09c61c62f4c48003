"""Velocities of flow matching as score models."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import grids
from ..core.errors import InvalidArgumentError
from ..core.sdes import VPSDE, AffineSDE, FlowSDE
from ..core.support.checks import check_callable, check_number
from ..core.support.signatures import parameters
from ..nets import External
from ..scores import ScoreModel
from ._models import Data, described, number_of, process_of


def from_flow_matching(
    velocity: Callable[..., Tensor],
    scheduler: Callable[[Tensor], Any] | None = None,
    *,
    t_min: float = 0.0,
    t_max: float = 1.0,
    event_shape: tuple[int, ...] | None = None,
    data_range: tuple[float, float] | None = None,
    data: Data | None = None,
) -> ScoreModel:
    r"""A velocity of flow matching as a score model.

    Flow matching runs from noise at :math:`t = 0` to data at :math:`t = 1`, with :math:`x_t = \alpha_t x_1 + \sigma_t
    x_0`. The process here has the time :math:`s = 1 - t`, and its flow is

    .. math:: \frac{dx}{ds} = -v(x, 1 - s), \qquad v(x, t) = E[\dot\alpha_t x_1 + \dot\sigma_t x_0 \,|\, x_t = x].

    So the velocity with the opposite sign is a prediction of the flow. The package flow_matching itself is not
    imported.

    Facts:
        flow_matching's ``ODESolver.sample(x, step_size=1 / n, method="euler")`` is ``solve(model.sde, model, x,
        method="euler", steps=n, grid=model.grid)``; ``midpoint`` likewise. It starts from N(0, I), like the process.

    Args:
        velocity: called as ``velocity(x, t, **context)`` with t as ``(batch,)``: a ``ModelWrapper`` of flow_matching,
            or any network. Its other arguments belong to the ``context`` of a solve, under their names.
        scheduler: of the path that it was trained on: called with a tensor t, it returns an object with the attributes
            ``alpha_t`` and ``sigma_t``, as the schedulers of flow_matching do. None: ``CondOTScheduler``, the straight
            lines :math:`\alpha = t,\ \sigma = 1 - t`. Probability paths that are not affine have no scheduler.
        t_min, t_max: the interval of s, from data to noise. At ``t_min=0`` there is no noise, at ``t_max=1`` no signal,
            and what needs the score there (certificates, likelihoods, `fit_solver`) is refused; ``t_min=1e-3`` and
            ``t_max=0.999`` serve it.
        event_shape: the shape of one sample, if known.
        data_range: the range of the data, if known.
        data: clean samples, or a pair of them and their context, on which `scoresde.check_score` tests the model; it is
            refused where another convention fits better.

    Returns:
        The model. Its process is `FlowSDE` or `VPSDE` where the path is theirs, else a `GaussianSDE`; its ``grid`` is
        `scoresde.grids.time`.

    Raises:
        InvalidArgumentError: the scheduler returns something else; its velocity at ``t_max`` is 0 whatever the data,
            as on the polynomial path at ``t_max=1``; or the velocity takes ``(t, x)``.
        InvalidTypeError: an argument has the wrong type.

    Example:
        >>> def velocity(x, t):  # of data N(0, I) and straight lines
        ...     t = t[:, None]
        ...     return x * (2 * t - 1) / (t**2 + (1 - t) ** 2)
        >>> model = from_flow_matching(velocity, event_shape=(2,))
        >>> x = torch.ones(1, 2, dtype=torch.float64)
        >>> ends = scoresde.solve(
        ...     model.sde, model, x, method="midpoint", steps=100, grid=model.grid
        ... ).x
        >>> bool((ends - 1).abs().max() < 1e-3)
        True

    References:
        Lipman et al. (2023), eqs. 22 and 23. https://arxiv.org/abs/2210.02747
        Lipman et al. (2024), Flow Matching Guide and Code, section 4.6. https://arxiv.org/abs/2412.06264
        https://github.com/facebookresearch/flow_matching (``path/scheduler``, ``solver/ode_solver.py``)
    """
    check_callable("velocity", velocity, "velocity(x, t)")
    if list(parameters(velocity) or ())[:2] == ["t", "x"]:
        raise InvalidArgumentError(
            "`velocity` must be called as velocity(x, t), but its arguments are (t, x); pass lambda x, t: velocity(t, "
            "x)."
        )
    low, high = check_number("t_min", t_min, low=0.0), check_number("t_max", t_max, high=1.0)
    sde: AffineSDE = FlowSDE(t_min=low, t_max=high)
    if scheduler is not None:
        check_callable("scheduler", scheduler, "scheduler(t)")
        known = [sde]
        if hasattr(scheduler, "beta_min") and hasattr(scheduler, "beta_max"):
            betas = (number_of(name, scheduler, "scheduler") for name in ("beta_min", "beta_max"))
            known.append(VPSDE(*betas, t_min=low, t_max=high))
        path = functools.partial(_path, scheduler)
        path(torch.tensor(high, dtype=torch.float64))  # refuses what is no scheduler
        sde = process_of(path, low, high, *known)
        last = sde.node(high)
        if not 0 < last.alpha * last.dsigma - last.sigma * last.dalpha < math.inf:
            raise InvalidArgumentError(
                f"`t_max`={high:g}: the path's velocity there is 0 or infinite whatever the data, so that nothing "
                "follows from it; take t_max=0.999."
            )
    model = ScoreModel(External(velocity, gain=-1.0, time=_reversed), sde, "flow", event_shape=event_shape)
    return described(model, data_range=data_range, grid=grids.time, data=data)


def _reversed(s: Tensor) -> Tensor:
    return 1 - s


def _path(scheduler: Callable[[Tensor], Any], s: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`\alpha` and :math:`\sigma` of a scheduler, as functions of the process's time."""
    found = scheduler(1 - s)
    alpha, sigma = (getattr(found, name, None) for name in ("alpha_t", "sigma_t"))
    if not isinstance(alpha, Tensor) or not isinstance(sigma, Tensor):
        raise InvalidArgumentError(
            "`scheduler` must return an object whose attributes alpha_t and sigma_t are tensors, got "
            f"{type(found).__name__}."
        )
    return alpha, sigma
