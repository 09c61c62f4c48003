r"""What exponential integrators share: the exact linear part, :math:`\varphi`-weights, and the history of multistep
methods.

Between two nodes, with :math:`h = \lambda_t - \lambda_s` and m the data or noise estimate of the network along the
path,

.. math:: x_t = K x_s + G h\int_0^1 e^{(1-\tau)z}\,m(\lambda_s+\tau h)\,d\tau + S z_0,

where for the data estimate, with stochasticity :math:`\eta`, :math:`K = \frac{\sigma_t}{\sigma_s}e^{-\eta^2h}`,
:math:`G = (1+\eta^2)\alpha_t`, :math:`z = -(1+\eta^2)h`, :math:`S = \sigma_t\sqrt{1-e^{-2\eta^2h}}`; and for the noise
estimate :math:`K = \frac{\alpha_t}{\alpha_s}`, :math:`G = -(1+\eta^2)\sigma_t`, :math:`z = h`, :math:`S =
\eta\sigma_t\sqrt{e^{2h}-1}`. Methods differ in how they approximate m inside the step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ...core.processes import Process, Request
from ...core.sdes import Estimate, Node
from ...core.sdes.records import LinearEstimate
from ...core.support.combination import Term, combine
from ...core.support.tensors import Scalar, absolute, exp, expm1, number
from .phi import phi

PREDICTIONS = ("data", "noise")
_APART = 0.05
_GAUSS = np.polynomial.legendre.leggauss(16)  # on [-1, 1]; the nodes and weights below are on [0, 1]
GAUSS_NODES = tuple(float(0.5 * (c + 1)) for c in _GAUSS[0])
GAUSS_WEIGHTS = tuple(float(0.5 * w) for w in _GAUSS[1])


class Frame(NamedTuple):
    """The coefficients K, G, z, S of the formula above, and h."""

    keep: Scalar
    gain: Scalar
    z: Scalar
    spread: Scalar
    h: Scalar


def frame(prediction: str, start: Node, stop: Node, eta: float = 0.0) -> Frame:
    """The frame of a step for the data or the noise estimate.

    Example:
        >>> import scoresde
        >>> sde = scoresde.VESDE()
        >>> frame("noise", sde.node(1.0), sde.node(0.5)).keep
        1.0
    """
    h = stop.lam - start.lam
    double = 1 + eta * eta
    if prediction == "data":
        keep = stop.sigma / start.sigma * (exp(-eta * eta * h) if eta else 1.0)
        spread = stop.sigma * (-expm1(-2 * eta * eta * h)) ** 0.5 if eta else 0.0
        return Frame(keep, double * stop.alpha, -double * h, spread, h)
    spread = eta * stop.sigma * expm1(2 * h) ** 0.5 if eta else 0.0
    return Frame(stop.alpha / start.alpha, -double * stop.sigma, h, spread, h)


def endless(start: Node, stop: Node) -> bool:
    """Whether a step begins at alpha = 0 or ends at sigma = 0, where its h is infinite."""
    first, last = number(start.lam), number(stop.lam)
    return isinstance(first, float) and not (math.isfinite(first) and math.isfinite(last))


def complete(x: Tensor, node: Node, prediction: str, value: Tensor) -> Estimate:
    """Both estimates at a state, from one of them."""
    if prediction == "data":
        return Estimate(value, combine(1 / node.sigma, x, -node.alpha / node.sigma, (1.0,), (value,)))
    return Estimate(combine(1 / node.alpha, x, -node.sigma / node.alpha, (1.0,), (value,)), value)


def transfer(estimate: LinearEstimate | Estimate, start: Node, stop: Node, eta: float = 0.0) -> Term:
    r"""The step of order 1 in the data's frame, without its noise: :math:`\alpha_t\hat x + \sigma_t
    e^{-\eta^2h}\hat\varepsilon`. It is finite at both ends."""
    fade = exp(eta * eta * (start.lam - stop.lam)) if eta else 1.0
    return estimate.mix(stop.alpha, stop.sigma * fade)


def adams_weights(nodes: Sequence[Scalar], z: Scalar) -> list[Scalar]:
    r"""Weights :math:`\omega_j = \int_0^1 e^{(1-\tau)z} L_j(\tau)\,d\tau`, with L the Lagrange basis on the nodes.

    They solve :math:`\sum_j \omega_j r_j^k = k!\,\varphi_{k+1}(z)`. Nodes are in units of the step: 0 is its start, 1
    its end, history is negative. With z = 0 they are the classical weights of Adams' methods.

    Example:
        >>> adams_weights((0.0, -1.0), 0.0)  # Adams-Bashforth
        [1.5, -0.5]
    """
    return interpolation_weights(nodes, moments(len(nodes), z))


def moments(count: int, z: Scalar) -> list[Scalar]:
    r""":math:`\int_0^1 e^{(1-\tau)z}\tau^k\,d\tau = k!\,\varphi_{k+1}(z)` for k = 0, …, count - 1."""
    return [math.factorial(k) * value for k, value in enumerate(phi(count, z)[1:])]


def interpolation_weights(nodes: Sequence[Scalar], moments: Sequence[Scalar]) -> list[Scalar]:
    r"""The weights :math:`\omega_j` of a rule on the nodes with :math:`\sum_j\omega_j r_j^k` = ``moments[k]``."""
    weights = []
    for j, own in enumerate(nodes):
        coefficients: list[Scalar] = [1.0]  # of L_j, lowest power first
        for k, other in enumerate(nodes):
            if k != j:
                scale = 1 / (own - other)
                shifted = [0.0, *coefficients]
                coefficients = [scale * (a - other * b) for a, b in zip(shifted, [*coefficients, 0.0], strict=True)]
        weights.append(sum(c * m for c, m in zip(coefficients, moments, strict=True)))
    return weights


class History(NamedTuple):
    """The history of a multistep method: nodes passed, newest first, and the network's estimates there."""

    nodes: tuple[Node, ...] = ()
    values: tuple[Tensor, ...] = ()

    def push(self, node: Node, value: Tensor, keep: int) -> History:
        """Add one node, and keep at most ``keep``; it replaces the newest if it lies next to that. Nodes with an
        infinite log-SNR cannot be interpolated."""
        if self._beside(node):
            return History(self.nodes[1:], self.values[1:]).push(node, value, keep)
        nodes = (node, *self.nodes)[:keep]
        lam = number(nodes[-1].lam)
        if isinstance(lam, float) and not math.isfinite(lam):
            nodes = nodes[:-1]
        return History(nodes, (value, *self.values)[: len(nodes)])

    def ends_at(self, node: Node) -> bool:
        """Whether the newest node is this one."""
        return bool(self.nodes) and (
            self.nodes[0] is node or (isinstance(node.t, float) and bool(self.nodes[0].t == node.t))
        )

    def _beside(self, node: Node) -> bool:
        """Whether a coming node lies within a twentieth of the last step of the newest one: such pairs (from times to
        save at) give no slope, and would turn the error of an estimate, of the size of a correction in a method that
        corrects, into a large one."""
        if len(self.nodes) < 2:
            return False
        lam, newest, older = (number(n.lam) for n in (node, *self.nodes[:2]))
        return isinstance(lam, float) and bool(absolute(lam - newest) <= _APART * absolute(newest - older))

    def apart(self, stop: Node) -> History:
        """The history without nodes that lie within a twentieth of the coming step of a newer one, likewise."""
        end, lams = number(stop.lam), [number(node.lam) for node in self.nodes]
        if len(self.nodes) < 2 or not isinstance(end, float):
            return self
        least = _APART * absolute(end - lams[0])
        kept = [0]
        for i in range(1, len(self.nodes)):
            if absolute(lams[i] - lams[kept[-1]]) > least:
                kept.append(i)
        if len(kept) == len(self.nodes):
            return self
        return History(tuple(self.nodes[i] for i in kept), tuple(self.values[i] for i in kept))


def positions(clock: Sequence[Scalar], now: Scalar, h: Scalar) -> list[Scalar]:
    """Values of a clock in units of a step h that starts at ``now``."""
    return [(u - now) / h for u in clock]


def read(process: Process, x: Tensor, node: Node, prediction: str) -> Request:
    """The estimate that a frame integrates."""
    return process.linear_estimate(x, node).then(lambda estimate: estimate.part(prediction))
