"""An adaptive pair of SDE-DPM-Solver++ for the reverse SDE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..core.processes import LOG_SNR, Coordinate, Process
from ..core.support.checks import check_number
from ..core.support.tensors import expand
from .base import SDE, Asking, Node, SDESolver, Step, StepControl, StepResult, of_power
from .families.exponential import frame, read
from .families.phi import phi

_FAR = 12.0  # stands for an infinite log-SNR
_POWER = 1.5  # of h in the error, since the estimates follow the noise
_SLIVER = 1e-12  # of a step, in the log-SNR; roots have no gradient at 0
_MOST = 4.0  # with a larger eta the clock does not fit into a float


class PairState(NamedTuple):
    """Per sample: the estimates at the start of the step and of the one before, and the way between them (0 before the
    second step)."""

    value: Tensor
    before: Tensor
    passed: Tensor


@dataclass(frozen=True)
class DPMppSDE12(SDESolver):
    r"""An adaptive pair of orders 1 and 2 for the reverse SDE, with a step size per sample.

    The step of SDE-DPM-Solver++ (2M) predicts, the new estimate :math:`m_t` corrects, with the same noise: in the frame
    of the data estimate, with :math:`h = \lambda_t-\lambda_s`, :math:`z = -(1+\eta^2)h` and :math:`D_1 =
    \big(\frac{h}{\lambda_s-\lambda_{s-1}}\big)^p(m_s - m_{s-1})`,

    .. math::
        x_1 &= \tfrac{\sigma_t}{\sigma_s}e^{-\eta^2h}x_s + (1+\eta^2)\alpha_t h\,\varphi_1(z)\,m_s +
            \sigma_t e^{-\eta^2\lambda_t}\,[B(v_t)-B(v_s)], \qquad v = e^{2\eta^2\lambda},\\
        \tilde x &= x_1 + \tfrac12(1+\eta^2)\alpha_t h\,\varphi_1(z)\,D_1, \qquad m_t = \hat x(\tilde x, t),\\
        x_t &= x_1 + (1+\eta^2)\alpha_t h\,\varphi_2(z)\,(m_t-m_s).

    With :math:`\eta = 1` the reverse process runs through the distributions of the forward one backwards, so that its
    :math:`m = E[x_0|x]` is a martingale, whose change in a step grows as :math:`\sqrt h`, where along the flow it grows
    as h: :math:`p = 1/(1+\min(\eta, 1)^2)`. Its weak order is 2 with any p; 1/2 is better on the large steps of useful
    tolerances, and 1 on small uneven ones.

    On the clock v the noise of a step is an increment of a Brownian motion, as :math:`v_t - v_s =
    e^{2\eta^2\lambda_t}(1-e^{-2\eta^2h})`: a step in two halves has the noise of the whole. The estimate at the
    predicted state serves the next step (PEC), so that a trial step costs one evaluation.

    The error is the mean of the differences to the method of order 1, :math:`\varphi_2(m_t-m_s)`, and to the one that
    continues with :math:`D_1`, :math:`\varphi_2(m_t-m_s-D_1)`. It may be as large as :math:`\max(\mathrm{atol},
    \mathrm{rtol}\,\sigma_t)`, since an error well below the noise that is still in the state does not matter: rtol is a
    share of the noise, atol a size in the units of the data. The last step, to the end of the solve, is the predictor
    alone and needs no evaluation, where :math:`\varphi_2D_1` is below a quarter of that. No step is longer than 2.5 in
    :math:`\lambda`.

    Facts:
        Weak order 2, strong order 1; 1 evaluation per trial step and one before the first, mostly none for the last.
        For a sample of good quality tolerances are large: rtol = 0.3, and atol a tenth of the smallest scale of the
        data that matters.

    Differs from:
        dpmpp_2m_sde (no corrector) and sa_solver (given steps).

    Args:
        eta: the stochasticity, 0 to 4.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.tensor([1.0, 0.01]))
        >>> sde = scoresde.VPSDE()
        >>> options = {"method": "dpmpp_sde12", "rtol": 0.3, "atol": 0.03}
        >>> score_fn = target.score(sde)
        >>> solution = scoresde.solve(sde, score_fn, shape=(4, 2), seeds=range(4), **options)
        >>> bool(solution.success.all()), bool((solution.nfe < 30).all())
        (True, True)

    References:
        Lu et al. (2022), DPM-Solver++, section 5. https://arxiv.org/abs/2211.01095
        Xue et al. (2023), SA-Solver, algorithm 1. https://arxiv.org/abs/2309.05019
    """

    eta: float = 1.0

    adaptive: ClassVar[bool] = True
    weak_order: ClassVar[int] = 2
    strong_order: ClassVar[float] = 1.0
    extra_evaluations: ClassVar[int] = 1
    reference: ClassVar[str] = "Lu et al. (2022), DPM-Solver++; Xue et al. (2023), SA-Solver; the pair is ours"
    noise_limit: ClassVar[bool] = True
    coordinate: ClassVar[Coordinate] = LOG_SNR
    control: ClassVar[StepControl] = StepControl(
        first_step=0.065,  # its tolerances are large, and steps grow from there
        growth=5.0,
        longest=2.5,  # errors where the noise is large do not show what a step passes over
        safety=0.8,
    )

    def __post_init__(self) -> None:
        check_number("eta", self.eta, low=0.0, high=_MOST)

    def noise_clock(self, sde: SDE, times: Tensor) -> Tensor:
        r""":math:`e^{2\eta^2\lambda}`."""
        return torch.exp(2 * self.eta**2 * sde.nodes(times).lam) if self.eta else times

    def init(self, process: Process, x: Tensor, start: Node[Tensor]) -> Asking[PairState]:
        """The estimate at the start."""
        value = yield read(process, x, start, "data")
        return PairState(value, value, torch.zeros_like(start.t))

    def step(self, process: Process, x: Tensor, start: Node[Tensor], stop: Node[Tensor], state: PairState) -> Step:
        """See `Solver.step`."""
        base, first, second, slope, h = yield from self._known(process, x, start, stop, state)
        new = yield read(process, base + 0.5 * first * slope, stop, "data")
        moved = base + second * (new - state.value)
        error = second * (new - state.value - 0.5 * slope)
        return StepResult(moved, PairState(new, state.value, h), of_power(error, _POWER, stop.sigma), state)

    def land(self, process: Process, x: Tensor, start: Node[Tensor], stop: Node[Tensor], state: PairState) -> Step:
        """The predictor, whose error is taken to be its second-order term, where that is known."""
        base, first, second, slope, h = yield from self._known(process, x, start, stop, state)
        unknown = expand(h > self.control.growth * (1 + 1e-6) * state.passed, x)
        error = torch.where(unknown > 0, torch.inf, second * slope)
        return StepResult(base + 0.5 * first * slope, None, of_power(error, _POWER, stop.sigma))

    def _known(
        self, process: Process, x: Tensor, start: Node[Tensor], stop: Node[Tensor], state: PairState
    ) -> Asking[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
        """The step of order 1, the weights of a slope and of a difference, D_1, and h."""
        begin, end = _lam(start), _lam(stop)
        end = torch.where(end <= begin, begin + _SLIVER, end)  # a sample that has arrived, whose roots are of 0
        part: Any = frame("data", start._replace(lam=begin), stop._replace(lam=end), self.eta)
        length = part.gain * part.h
        _, first, second = phi(2, part.z)
        known = state.passed > 0
        ratio = part.h / torch.where(known, state.passed, 1.0)
        # after a very short step, to a time to save at, the noise is no slope
        ratio = ratio.clamp_max(self.control.growth)
        power = 1 / (1 + min(self.eta, 1.0) ** 2)
        slope = expand(torch.where(known, ratio**power, 0.0), x) * (state.value - state.before)
        base = expand(part.keep, x) * x + expand(length * first, x) * state.value
        base = base + expand(part.spread, x) * (yield process.increment(start.t, stop.t, x))
        return base, expand(length * first, x), expand(length * second, x), slope, part.h


def _lam(node: Node[Tensor]) -> Tensor:
    """The node's log-SNR (its half), finite."""
    return torch.nan_to_num(node.lam, nan=torch.nan, posinf=_FAR, neginf=-_FAR)
