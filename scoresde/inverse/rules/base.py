r"""The protocol of a rule: how a measurement moves the data estimate. Rules import from here what their signatures
name.

For :math:`x_t = \alpha x_0 + \sigma\varepsilon` the conditional score and the conditional estimate are the same thing,

.. math::
    E[x_0|x_t, y] = \hat x + \frac{\sigma^2}{\alpha}\nabla_{x_t}\ln p(y|x_t), \qquad
        C_t = \mathrm{Cov}[x_0|x_t] = \frac{\sigma^2}{\alpha}\frac{\partial\hat x}{\partial x_t}.

A rule gives an approximation of the left equation, with which any solver samples.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError, ScoreFnError
from ...core.sdes import AffineSDE, Estimate, Node
from ...core.support.tensors import Scalar, expand, leaves_of, usable
from ..measurement import Measurement


@dataclass
class Tally:
    """Counts vector-Jacobian products, of the whole batch at once.

    Example:
        >>> Tally().products
        0
    """

    products: int = 0


@dataclass
class Known:
    r"""The network's estimate at a state, and vector-Jacobian products.

    Attributes:
        x: the state.
        node: the node of the state.
        data: :math:`\hat x`, without a graph.
        noise: :math:`\hat\varepsilon`, without a graph.

    Example:
        >>> sde = scoresde.EDMSDE()
        >>> score_fn = scoresde.targets.Gaussian(torch.zeros(1), 1.0).score(sde)
        >>> known = look(
        ...     score_fn.estimate, torch.ones(1, 1), sde.node(1.0), Tally(), gradients=True
        ... )
        >>> # the mean and the variance of the data given x = 1
        >>> (known.data, known.covary(torch.ones(1, 1)))
        (tensor([[0.5000]]), tensor([[0.5000]]))
    """

    x: Tensor
    node: Node
    data: Tensor
    noise: Tensor
    tally: Tally
    _input: Tensor | None = None
    _output: Tensor | None = None
    _keep: bool = field(default=False)

    def pull(self, v: Tensor) -> Tensor:
        r""":math:`J^Tv` with :math:`J = \partial\hat x/\partial x_t`, shaped like ``x``."""
        if self._input is None or self._output is None:
            raise InvalidArgumentError("A rule that takes vector-Jacobian products must set `gradients = True`.")
        self.tally.products += 1
        with torch.inference_mode(False):
            pulled = torch.autograd.grad(
                self._output, self._input, usable(v), retain_graph=True, create_graph=self._keep
            )
            return pulled[0]

    def covary(self, v: Tensor) -> Tensor:
        r""":math:`C_tv = \frac{\sigma^2}{\alpha}J^Tv`, shaped like ``x``."""
        return expand(self.spread, v) * self.pull(v)

    @property
    def spread(self) -> Scalar:
        r""":math:`\sigma^2/\alpha`."""
        return self.node.sigma * self.node.sigma / self.node.alpha


def look(estimate: Callable[[Tensor, Node], Estimate], x: Tensor, node: Node, tally: Tally, gradients: bool) -> Known:
    """Evaluate a network once, with or without a graph for vector-Jacobian products. The graph is that of one
    evaluation, and is freed with the result; a surrounding one (``differentiable=True``) is kept.

    Example:
        >>> import scoresde
        >>> sde = scoresde.VPSDE()
        >>> score_fn = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)).score(sde)
        >>> known = look(
        ...     score_fn.estimate, torch.ones(1, 2), sde.node(0.5), Tally(), gradients=True
        ... )
        >>> bool(torch.allclose(known.pull(torch.ones(1, 2)), known.data))
        True
    """
    if not gradients:
        data, noise = estimate(x, node)[:2]
        return Known(x, node, data, noise, tally)
    outside = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        given = x if outside and x.requires_grad else x.detach().clone().requires_grad_()
        data, noise = estimate(given, node)[:2]
    if not (data.requires_grad and noise.requires_grad):
        raise ScoreFnError(
            "The score function blocks gradients (or does not depend on x), which this method needs; write it in "
            "torch, without no_grad, detach or numpy, or take 'ddnm', 'diffpir' or 'ddrm'."
        )
    keep = outside and (x.requires_grad or any(leaf is not given for leaf in leaves_of(data)))
    shown = (data, noise) if keep else (data.detach(), noise.detach())
    return Known(x, node, *shown, tally, given, data, keep)


class Rule(abc.ABC):
    """How a measurement moves the data estimate. Subclasses are frozen dataclasses whose fields are the options.

    Attributes:
        name: its name in `scoresde.inverse.condition`.
        gradients: whether it takes vector-Jacobian products; ``products``: how many per evaluation.
        reference: the publication.
        needs: the checks of `Measurement` that a measurement must pass, such as ``(Measurement.linear,)``.
        sampler: the solver that `scoresde.inverse.sample_posterior` takes if none is given.

    Example:
        >>> class Halfway(Rule):
        ...     def apply(self, known, measurement, y):
        ...         return known.data + 0.5 * measurement.pull(
        ...             known.data, y - measurement.operator.forward(known.data)
        ...         )
        >>> sde = scoresde.VPSDE()
        >>> score_fn = scoresde.targets.Gaussian(torch.zeros(2), 1.0).score(sde)
        >>> posterior = scoresde.inverse.condition(
        ...     score_fn, torch.eye(2), torch.ones(2), method=Halfway()
        ... )
        >>> posterior(torch.zeros(1, 2), 0.5).shape
        torch.Size([1, 2])
    """

    name: ClassVar[str] = "own"
    gradients: ClassVar[bool] = False
    batch_coupled: ClassVar[bool] = False
    reference: ClassVar[str] = ""
    needs: ClassVar[tuple[Callable[[Measurement, str], object], ...]] = ()
    sampler: ClassVar[str] = "dpmpp_2m_sde"

    @property
    def products(self) -> int:
        """Vector-Jacobian products per evaluation."""
        return 0

    def ready(self, measurement: Measurement, sde: AffineSDE) -> Rule:
        """The rule, made ready for a measurement; one that it cannot use is refused."""
        for need in self.needs:
            need(measurement, self.name)
        return self

    @abc.abstractmethod
    def apply(self, known: Known, measurement: Measurement, y: Tensor) -> Tensor:
        r"""The estimate of :math:`E[x_0|x_t, y]`, ``(batch, *event)``, given y ``(batch, *measurement)``."""

    def log_likelihood(self, known: Known, measurement: Measurement, y: Tensor) -> Tensor:
        r"""The rule's :math:`\ln p(y|x_t)`, ``(batch,)``, up to terms that do not depend on :math:`x_t`; only rules
        that are the gradient of a likelihood have it."""
        raise InvalidArgumentError(f"{self.name!r} has no density p(y|x_t), as 'dps' and 'pigdm' have.")
