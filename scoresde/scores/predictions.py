r"""What networks predict: the data estimate and the noise estimate as linear functions of the state and the output."""

from __future__ import annotations

from typing import Any

from ..core.sdes import Node
from ..core.sdes.records import SCORE, Prediction
from ..core.support.checks import check_choice
from ..core.support.tensors import Scalar, divide, sqrt

Pair = tuple[Scalar, Scalar]  # a and b of a x + b out


def _data_of_noise(n: Node[Any], sigma_data: float) -> Pair:
    return divide(1.0, n.alpha), divide(-n.sigma, n.alpha)


def _noise_of_data(n: Node[Any], sigma_data: float) -> Pair:
    return divide(1.0, n.sigma), divide(-n.alpha, n.sigma)


def _output(n: Node[Any], sigma_data: float) -> Pair:
    return 0.0, 1.0


def _data_of_v(n: Node[Any], sigma_data: float) -> Pair:
    norm = n.alpha * n.alpha + n.sigma * n.sigma
    return n.alpha / norm, -n.sigma / norm


def _noise_of_v(n: Node[Any], sigma_data: float) -> Pair:
    norm = n.alpha * n.alpha + n.sigma * n.sigma
    return n.sigma / norm, n.alpha / norm


def _data_of_flow(n: Node[Any], sigma_data: float) -> Pair:
    det = n.alpha * n.dsigma - n.sigma * n.dalpha
    return n.dsigma / det, -n.sigma / det


def _noise_of_flow(n: Node[Any], sigma_data: float) -> Pair:
    det = n.alpha * n.dsigma - n.sigma * n.dalpha
    return -n.dalpha / det, n.alpha / det


# EDM's c_skip, c_out at y = x/alpha, rho = sigma/alpha, multiplied out: no division by alpha or sigma is left.


def _data_of_edm(n: Node[Any], sigma_data: float) -> Pair:
    q2 = edm_size(n, sigma_data)
    return sigma_data * sigma_data * n.alpha / q2, sigma_data * n.sigma / sqrt(q2)


def _noise_of_edm(n: Node[Any], sigma_data: float) -> Pair:
    q2 = edm_size(n, sigma_data)
    return n.sigma / q2, -sigma_data * n.alpha / sqrt(q2)


def edm_size(n: Node[Any], sigma_data: float) -> Any:
    r"""The variance of the state, :math:`\sigma^2 + \sigma_{data}^2\alpha^2`.

    Example:
        >>> edm_size(scoresde.EDMSDE().node(2.0), 1.0)
        5.0
    """
    return n.sigma * n.sigma + (sigma_data * n.alpha) * (sigma_data * n.alpha)


PREDICTIONS: dict[str, Prediction] = {
    "score": SCORE,
    "noise": Prediction(data=_data_of_noise, noise=_output),
    "data": Prediction(data=_output, noise=_noise_of_data),
    "v": Prediction(data=_data_of_v, noise=_noise_of_v),
    "flow": Prediction(data=_data_of_flow, noise=_noise_of_flow),
    "edm": Prediction(data=_data_of_edm, noise=_noise_of_edm),
}
# Other libraries' names of them, OpenAI's and diffusers'. "velocity" is not among them: v in some, the flow in others.
ALIASES: dict[str, str] = {
    "epsilon": "noise",
    "eps": "noise",
    "sample": "data",
    "x0": "data",
    "x_start": "data",
    "v_prediction": "v",
    "flow_prediction": "flow",
}


def prediction_of(name: object) -> str:
    """The name of a prediction here, for one that may be another library's.

    Example:
        >>> prediction_of("epsilon"), prediction_of("v")
        ('noise', 'v')
    """
    return check_choice("prediction", ALIASES.get(name, name) if isinstance(name, str) else name, PREDICTIONS)


# The part of an estimate that is the network's own output, which its next call may overwrite.
NETWORK_PARTS: dict[str, tuple[str, ...]] = {"noise": ("noise",), "data": ("data",)}
HAS_NOISE_LIMIT = frozenset({"data", "v", "flow"})  # defined where alpha = 0
