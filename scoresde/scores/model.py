r"""Score networks: what a network predicts and how it expects its inputs, turned into one protocol.

A network may predict the score, the noise, the data, v, the velocity of the flow, or EDM's raw output; all of them are
the same two quantities, :math:`\hat x = E[x_0|x_t]` and :math:`\hat\varepsilon`, with :math:`x_t = \alpha\hat x +
\sigma\hat\varepsilon`. `ScoreModel` wraps the network once, and every solver, process and loss reads the `Estimate`
that it needs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError
from ..core.sdes import SDE, AffineSDE, Estimate, Node
from ..core.sdes.base import check_sde
from ..core.sdes.records import LearnedEstimate, LinearEstimate
from ..core.sdes.span import log_snr_range, within
from ..core.support.checks import (
    check_callable,
    check_choice,
    check_kind,
    check_number,
    check_output,
    check_shape,
    fits,
)
from ..core.support.context import check_unwritten, has_rows, per_row, versions
from ..core.support.memo import constants_of
from ..core.support.signatures import accepts, extras
from ..core.support.tensors import Scalar, expand, has_graph
from ..discrete import Chain
from ..grids import GridFunction
from .base import Direct, Score, Traits, changed, device_of, dtype_of, time_rows
from .fixed import check_sizes, fixed_sizes
from .predictions import HAS_NOISE_LIMIT, NETWORK_PARTS, PREDICTIONS, edm_size, prediction_of

# What a network receives as its time: a function of a node, of numbers or of (batch,) tensors.
TIME_INPUTS: dict[str, Callable[[Node[Any]], Any]] = {
    "t": lambda n: n.t,
    "sigma": lambda n: n.sigma,
    "rho": lambda n: n.sigma / n.alpha,
    "log_snr": lambda n: 2 * n.lam,
    "edm": lambda n: -0.25 * n.lam,  # ln(rho) / 4
}

# How the second half of the channels is read: as the share of the way from the smallest variance to the largest.
VARIANCES: dict[str, Callable[[Tensor], Tensor]] = {"learned_range": lambda v: 0.5 * (v + 1)}


class ScoreModel(Score):
    r"""A network as a score function, with its conventions declared.

    With :math:`x_t = \alpha x_0 + \sigma\varepsilon` a network predicts one of

    ============ =======================================================================================
    prediction   output
    ============ =======================================================================================
    ``"score"``  :math:`\nabla\log p_t(x_t) = -\hat\varepsilon/\sigma`
    ``"noise"``  :math:`\hat\varepsilon`
    ``"data"``   :math:`\hat x`
    ``"v"``      :math:`\alpha\hat\varepsilon - \sigma\hat x`
    ``"flow"``   :math:`\alpha'\hat x + \sigma'\hat\varepsilon` (dx/dt with t growing towards noise)
    ``"edm"``    F of :math:`\hat x = c_{skip} y + c_{out} F(c_{in} y)`, :math:`y = x_t/\alpha`
    ============ =======================================================================================

    Args:
        net: called as ``net(input, time, **context)``; an ``nn.Module`` is called in its own dtype, which is that of
            its parameters or of its packed weights.
        sde: the process that :math:`\alpha` and :math:`\sigma` belong to.
        prediction: see the table, or another library's name: ``"epsilon"`` and ``"eps"`` (noise), ``"sample"``,
            ``"x0"`` and ``"x_start"`` (data), ``"v_prediction"`` (v), ``"flow_prediction"`` (flow).
        time_input: what ``time`` is, ``(batch,)``: ``"t"``, ``"sigma"``, ``"rho"`` (:math:`\sigma/\alpha`),
            ``"log_snr"`` (:math:`\ln\alpha^2/\sigma^2`), ``"edm"`` (:math:`\tfrac14\ln\rho`), ``"index"`` (the int64
            label of the level of ``chain`` that is nearest in log-SNR), or a function of t. Integers are passed as
            they are, the rest in the network's dtype. Default: ``"t"``, and ``"edm"`` for an EDM prediction.
        input_scale: ``"x"`` or ``"x/alpha"`` (a k-diffusion denoiser is
            ``prediction="data", time_input="rho", input_scale="x/alpha"``). With an EDM prediction the network always
            receives :math:`c_{in} y`.
        chain: the discrete chain that the network was trained on, for ``time_input="index"``: a
            `scoresde.discrete.BetaChain` (DDPM) or `scoresde.discrete.NoiseScales` (NCSN). On a grid of the chain's own
            times labels are exact; elsewhere they are rounded.
        variance: None, or ``"learned_range"`` for a network whose output has twice the channels (axis 1): first the
            prediction, then improved DDPM's :math:`2v - 1`, which interpolates the variance of a reverse step; see
            `variance` and `scoresde.solvers.Ancestral`.
        sigma_data: the data's standard deviation in EDM's preconditioning.
        context: inputs of the network for every sample, besides the ``context`` of a solve. Numbers are expanded to
            ``(batch,)`` and tensors ``(1, …)`` to the batch, tensors also inside dicts, lists and tuples; other values,
            such as None, are passed as they are. A tensor with one row per sample is passed whole, so that the model
            needs the whole batch at every call and is not ``rowwise``; pass such a tensor in the ``context`` of the
            solve instead, which drops the rows of finished samples.
        event_shape: the shape of one sample, if known; `scoresde.solve` then needs no ``shape``.

    Attributes:
        native: the process that the network is meant for; `on` serves others.
        variance_name: the argument ``variance``; the method of that name gives the numbers.
        data_std: the data's standard deviation: the ``sigma_data`` of an EDM prediction, else None unless you set it;
            `scoresde.solvers.Adams` follows it.
        data_range: the range of the data that the network was trained on, such as (-1, 1); None where it is not known.
        grid: the grid of the sampler that the network came with, for ``solve(..., grid=model.grid)``; None for none.

    Shapes:
        x: ``(batch, *event)``; t: a float, 0-d or ``(batch,)``.

    Raises:
        InvalidArgumentError: a name is unknown, the ``chain`` is missing or not used, or its networks expect the data
            scaled otherwise than ``sde`` and ``input_scale`` do.
        InvalidTypeError: an argument has the wrong type.
        ScoreFnError: in a call, the network returned something that is not a prediction.

    Example:
        >>> import scoresde
        >>> sde = scoresde.VPSDE()
        >>> model = ScoreModel(lambda x, t: x, sde, prediction="noise")
        >>> x = torch.ones(1, 2)
        >>> bool(torch.allclose(model(x, 0.5), -model.noise(x, 0.5) / sde.sigma(0.5)))
        True

    References:
        Salimans, Ho (2022), Progressive Distillation, appendix D (v). https://arxiv.org/abs/2202.00512
        Karras et al. (2022), table 1 (EDM). https://arxiv.org/abs/2206.00364
        Nichol, Dhariwal (2021), eq. 15 (learned range). https://arxiv.org/abs/2102.09672
    """

    def __getattr__(self, name: str) -> Any:
        hint = "; scoresde.solve(model.sde, model, shape=(number, *event)) draws samples" if name == "sample" else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("prediction", "time_input", "input_scale", "variance_name") and name in vars(self):
            raise AttributeError(f"`{name}` belongs to a ScoreModel as it was made; make another one.")
        super().__setattr__(name, value)

    takes_host_nodes = True

    def __init__(
        self,
        net: Callable[..., Tensor],
        sde: AffineSDE,
        prediction: str,
        time_input: str | Callable[[Tensor], Tensor] | None = None,
        input_scale: str = "x",
        *,
        chain: Chain | None = None,
        variance: str | None = None,
        sigma_data: float = 0.5,
        context: Mapping[str, object] | None = None,
        event_shape: tuple[int, ...] | None = None,
    ) -> None:
        check_callable("net", net, "net(x, time)")
        check_sde(sde, affine=True)
        names = {"prediction": prediction, "input_scale": input_scale, "time_input": time_input, "variance": variance}
        for name, value in names.items():
            if value is not None and not isinstance(value, str) and not (name == "time_input" and callable(value)):
                raise InvalidTypeError(f"`{name}` must be a name, got {value!r}.")
        check_kind("context", context, (Mapping, type(None)), "a mapping from names to values")
        prediction = prediction_of(prediction)
        check_choice("input_scale", input_scale, ("x", "x/alpha"))
        if prediction == "edm" and input_scale != "x":
            raise InvalidArgumentError('prediction="edm" scales its own input by c_in; leave `input_scale` out.')
        time_input = ("edm" if prediction == "edm" else "t") if time_input is None else time_input
        if variance is not None:
            check_choice("variance", variance, VARIANCES)
        self.net = net
        self._sizes = fixed_sizes(net)
        self.native = sde
        self._served: dict[float, Node] | None = None  # native nodes by log-SNR, of a model that serves another process
        self.prediction = prediction
        self.time_input = time_input
        self.input_scale = input_scale
        self.chain = chain
        self.sigma_data = check_number("sigma_data", sigma_data, low=0.0, strict=True)
        self.context = dict(context or {})
        self.data_range: tuple[float, float] | None = None
        self.grid: GridFunction | None = None
        self._read_time = _reader(time_input, chain)
        self._prediction = PREDICTIONS[prediction]
        self.variance_name = variance
        self._share = None if variance is None else VARIANCES[variance]
        if chain is not None and prediction != "edm":
            _check_scale(sde, input_scale, chain)
        self.traits = Traits(
            sde=sde,
            event_shape=None if event_shape is None else check_shape("event_shape", event_shape, rank=1),
            # samples may leave the batch, unless a bound tensor has an entry for each, or its size is fixed
            rowwise=not has_rows(self.context) and self._sizes[:1] in ((), (None,)),
            noise_limit=(
                prediction in HAS_NOISE_LIMIT and input_scale == "x" and time_input not in ("rho", "log_snr", "edm")
            ),
            variance=variance is not None,
            network_parts=NETWORK_PARTS.get(prediction, ()),
            data_std=self.sigma_data if prediction == "edm" else None,
            prediction=prediction,
        )

    @property
    def sde(self) -> AffineSDE:
        """The process that it serves; `on` serves others."""
        return self.traits.sde  # type: ignore[return-value]

    @property
    def data_std(self) -> float | None:
        """The data's standard deviation, RMS over dimensions; None where it is not known. It can be set."""
        return self.traits.data_std

    @data_std.setter
    def data_std(self, value: float | None) -> None:
        known = None if value is None else check_number("data_std", value, low=0.0, strict=True)
        self.traits = replace(self.traits, data_std=known)

    @property
    def bound_names(self) -> frozenset[str]:
        """The names of the bound context."""
        return frozenset(self.context)

    def unbound(self, context: Mapping[str, object]) -> tuple[Score, dict[str, object]]:
        """The model itself, and the bound context with that of a call."""
        check_kind("context", context, Mapping, "a mapping of names to values")
        return self, {**self.context, **context}

    def same_network(self, other: Score) -> bool:
        """Whether another model evaluates the same network in the same way, but for the bound context."""
        check_kind("other", other, Score, "a Score")
        if self is other:
            return True
        if not isinstance(other, ScoreModel):
            return False
        names = ("prediction", "time_input", "input_scale", "chain", "sigma_data", "_share")
        same = all(getattr(self, name) == getattr(other, name) for name in names)
        return self.net is other.net and same and self.sde.same_schedule(other.sde)

    def accepts(self, name: str) -> bool:
        """Whether the network has an argument of this name, for the ``context`` of a solve."""
        return accepts(self.net, name)

    @property
    def context_arguments(self) -> Mapping[str, bool]:
        """See `Score.context_arguments`."""
        known = extras(self.net)
        if type(self) is not ScoreModel:  # it may pass some itself
            known = dict.fromkeys(known, False)
        return {**known, **dict.fromkeys(self.context, False)}

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest log-SNR of the process that the network is meant for (`native`)."""
        return log_snr_range(self.native)

    def on(self, sde: AffineSDE) -> ScoreModel:
        r"""The same network as a score function of another process.

        Where two processes have the same :math:`\lambda`, :math:`x/\alpha` has the same distribution in both, and
        :math:`\hat x` and :math:`\hat\varepsilon` are the same. So the network is evaluated at its own time of
        that :math:`\lambda`, with the state scaled to its own process,

        .. math:: x_{own} = \frac{\alpha_{own}}{\alpha} x = \frac{\sigma_{own}}{\sigma} x .

        Nothing is approximated but for ``time_input="index"``, which rounds to the nearest level. A learned variance
        is left out: it is the share of a step of the network's own process.

        Args:
            sde: an affine process whose log-SNR stays within `limits`; `within` trims one.

        Raises:
            InvalidArgumentError: the process goes beyond the log-SNRs that the network was trained on.

        Example:
            >>> model = ScoreModel(lambda x, t: x, scoresde.VPSDE(), prediction="noise")
            >>> flow = model.on(within(scoresde.FlowSDE(), model.limits))
            >>> x = torch.ones(1, 2, dtype=torch.float64)
            >>> t = scoresde.VPSDE().time(flow.sde.log_snr(0.5))
            >>> own = x * scoresde.VPSDE().alpha(t) / flow.sde.alpha(0.5)
            >>> bool((flow.data(x, 0.5) - model.data(own, t)).abs().max() < 1e-12)
            True

        References:
            Karras et al. (2022), section 3 and table 1. https://arxiv.org/abs/2206.00364
        """
        check_sde(sde, affine=True)
        if within(sde, self.limits) is not sde:
            (low, high), (own_low, own_high) = log_snr_range(sde), self.limits
            raise InvalidArgumentError(
                f"`sde`: its log-SNR runs from {high:.4g} to {low:.4g}, that of the network's own process, "
                f"{self.native!r}, from {own_high:.4g} to {own_low:.4g}, and beyond them it was not trained. Trim "
                "the process: network.process(sde) of a loaded network, or scoresde.within(sde, model.limits)."
            )
        model = copy.copy(self)
        own = sde.same_schedule(self.native)
        model._served = None if own else {}
        model.traits = replace(self.traits, sde=sde, variance=own and self._share is not None)
        return model

    def for_process(self, sde: SDE) -> Score:
        """See `Score.for_process`."""
        return self.on(sde) if isinstance(sde, AffineSDE) and not self.made_for(sde) else super().for_process(sde)

    def _own(self, x: Tensor, node: Node) -> tuple[Tensor, Node]:
        """A state and a node of the process that is served, as those of the network's own."""
        scale, native = self._scaled(node)
        return x if self._served is None else x * expand(scale, x), native

    def _scaled(self, node: Node[Any]) -> tuple[Scalar, Node[Any]]:
        """The factor by which a state of the process that is served is one of the network's own, and the node there."""
        if self._served is None:
            return 1.0, node
        native, lam = self._native_node(node.lam), node.lam
        if isinstance(lam, Tensor):  # the two ratios are one number; one of them is 0/0 where alpha or sigma vanishes
            noisy = lam < 0
            return torch.where(noisy, native.sigma, native.alpha) / torch.where(noisy, node.sigma, node.alpha), native
        return native.sigma / node.sigma if lam < 0 else native.alpha / node.alpha, native

    def _native_node(self, lam: Scalar) -> Node:
        if isinstance(lam, Tensor):
            return self.native.nodes(self.native.time(2 * lam))
        known = {} if self._served is None else self._served
        if lam not in known:
            self._prepare_at([lam])
        return known[lam]

    def _own_node(self, node: Node[Any]) -> Node[Any]:
        return node if self._served is None else self._native_node(node.lam)

    def _prepare_at(self, lams: Sequence[float]) -> None:
        """Compute the native nodes of some log-SNRs (their halves) at once."""
        known = {} if self._served is None else self._served
        if len(known) + len(lams) > _MOST_NODES:
            known.clear()
        with torch.no_grad():
            nodes = self.native.nodes(self.native.time(2 * torch.tensor(lams, dtype=torch.float64)))
        known.update(zip(lams, (Node(*row) for row in zip(*(v.tolist() for v in nodes), strict=True)), strict=True))

    def estimate(self, x: Tensor, node: Node, **context: object) -> Estimate:
        """The network's `Estimate` at a node of the process; what solvers call."""
        x, node = self._own(x, node)
        out = self._call(x, node, context)
        if self._share is None:
            return self._prediction(x, out, node, self.sigma_data)
        channels = x.shape[1]
        estimate = self._prediction(x, out[:, :channels], node, self.sigma_data)
        if not self.has_variance:
            return estimate
        return LearnedEstimate(*estimate, variance=self._share(out[:, channels:]))

    def direct(self, like: Tensor, nodes: Sequence[Node[float]], context: Mapping[str, object]) -> Direct | None:
        """See `Score.direct`."""
        learned = any(isinstance(v, Tensor) for node in nodes[:1] for v in node)
        if learned or changed(self, ScoreModel) or not (isinstance(self.time_input, str) and nodes):
            return None
        if self._served is not None:
            self._prepare_at([node.lam for node in nodes])
        dtype, extra = self._dtype(like), self._extra(like, context)
        labels = self._labels([self._own_node(node) for node in nodes])
        rows = time_rows(nodes, labels.to(dtype) if labels.is_floating_point() else labels, like)

        single = self._share is None
        plain = self._served is None and self._plain and dtype is like.dtype

        def output(x: Tensor, node: Node[float], time: Tensor) -> Tensor:
            if plain:
                out = self.net(x, time, **extra)
            else:
                state, own = self._own(x, node)
                before = None if state is x else versions(state, {})
                out = self.net(self.input_at(state, own).to(dtype), time, **extra)
                if before is not None:
                    check_unwritten("The network", before, state, {})
            return out if single and fits(out, x) else self._checked(out, x).to(x.dtype)

        def read(x: Tensor, out: Tensor, node: Node[float]) -> LinearEstimate:
            scale, own = self._scaled(node)
            if self._share is None:
                return LinearEstimate(x, out, self._prediction, own, self.sigma_data, scale)
            channels = x.shape[1]
            estimate = LinearEstimate(x, out[:, :channels], self._prediction, own, self.sigma_data, scale)
            estimate.variance = self._share(out[:, channels:]) if self.has_variance else None
            return estimate

        return Direct(output, read, rows, extra, "The network", checked=True)

    @property
    def kind(self) -> Hashable | None:
        """See `Score.kind`."""
        own = () if self._served is None else constants_of(self.native)
        if own is None or self._share is not None or changed(self, ScoreModel) or not isinstance(self.time_input, str):
            return None
        return self._prediction, self.sigma_data, own

    def _checked(self, out: Any, x: Tensor) -> Tensor:
        """An output that is one."""
        hint = " with the channels doubled for the variance" if self.has_variance else ""
        return check_output("The network", out, x if self._share is None else _doubled(x), hint)

    @property
    def _plain(self) -> bool:
        """Whether the network gets the state as it is."""
        return self.prediction != "edm" and self.input_scale == "x"

    def input_at(self, x: Tensor, node: Node) -> Tensor:
        """What the network gets for a state at a node of its own process."""
        if self.prediction == "edm":
            return x * expand(1 / edm_size(node, self.sigma_data) ** 0.5, x)
        return x / expand(node.alpha, x) if self.input_scale == "x/alpha" else x

    @property
    def network_device(self) -> torch.device | None:
        """See `Score.network_device`."""
        return device_of(self.net)

    @property
    def network_dtype(self) -> torch.dtype | None:
        """See `Score.network_dtype`."""
        known = dtype_of(self.net)
        return None if known is None else self._cast(known)

    def _cast(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype of a network with such parameters; of one that ``casts_itself``, single precision at least."""
        return torch.promote_types(dtype, torch.float32) if getattr(self.net, "casts_itself", False) else dtype

    def _dtype(self, x: Tensor) -> torch.dtype:
        """What states are cast to for the network."""
        known = dtype_of(self.net) if isinstance(self.net, torch.nn.Module) else None
        return self._cast(known or x.dtype)

    def _extra(self, x: Tensor, context: Mapping[str, object]) -> dict[str, Any]:
        """What the network gets besides the state and its time."""
        check_sizes(self._sizes, x)
        return per_row({**self.context, **context}, x, tables=True)

    def _labels(self, nodes: Sequence[Node[Any]]) -> Tensor:
        """What the network gets as its time at some nodes, ``(n,)`` float64 or integers; not of a function of t."""
        return self._read_time(Node(*torch.tensor(nodes, dtype=torch.float64).unbind(1)))

    def _times(self, x: Tensor, node: Node, dtype: torch.dtype) -> Tensor:
        """What the network gets as its time at one node, ``(batch,)``, the network's to keep."""
        if isinstance(self.time_input, str) and not isinstance(node.t, Tensor):
            label = self._labels([node])
            kind = dtype if label.is_floating_point() else label.dtype
            return torch.full((len(x),), label.item(), dtype=kind, device=x.device)
        device = node.t.device if isinstance(self.time_input, str) and isinstance(node.t, Tensor) else x.device
        time = self._read_time(Node(*(_per_sample(v, len(x), device) for v in node)))
        return time.to(x.device, dtype if time.is_floating_point() else time.dtype, copy=True)

    def _call(self, x: Tensor, node: Node, context: Mapping[str, object]) -> Tensor:
        dtype, extra = self._dtype(x), self._extra(x, context)
        time, before = self._times(x, node, dtype), versions(x, extra)
        out = self.net(self.input_at(x, node).to(dtype), time, **extra)
        check_unwritten("The network", before, x, extra)
        return self._checked(out, x).to(
            x.dtype, copy=has_graph(*node)
        )  # what a gradient of the schedule is made of must last

    def variance(self, x: Tensor, t: Scalar, **context: object) -> Tensor:
        r"""The learned variance of a reverse step, as the share v of the way from the smallest to the largest in the
        logarithm, elementwise: the network's output o is read as :math:`v = (o+1)/2`, not clipped.

        A step to level t from level s has the variance :math:`\sigma_{large}^{2v}\,\sigma_{small}^{2(1-v)}`
        (`scoresde.solvers.Ancestral`), so v belongs to the state and the step's length does not.

        Raises:
            InvalidArgumentError: the model was made without ``variance``.
        """
        if self._share is None or not self.has_variance:
            raise InvalidArgumentError(
                "This model has no learned variance; if the network's output has twice the channels, make it with "
                "ScoreModel(..., variance='learned_range'), and use it on its own process."
            )
        state, node = self._own(*self._at(x, t))
        out = self._call(state, node, context)
        return self._share(out[:, state.shape[1] :]).to(x.dtype)

    def __repr__(self) -> str:
        time = self.time_input if isinstance(self.time_input, str) else "a function of t"
        served = "" if self._served is None else f".on({self.sde!r})"
        return (
            f"ScoreModel({type(self.net).__name__}, {self.native!r}, prediction={self.prediction!r}, "
            f"time_input={time!r}){served}"
        )


_MOST_NODES = 4096


def _reader(time_input: str | Callable[[Tensor], Tensor], chain: Chain | None) -> Callable[[Node[Tensor]], Tensor]:
    """What the network receives as its time, as a function of a node."""
    check_kind("chain", chain, (Chain, type(None)), "a chain such as scoresde.discrete.BetaChain.linear()")
    if isinstance(time_input, str):
        check_choice("time_input", time_input, (*TIME_INPUTS, "index"))
    if (time_input == "index") != (chain is not None):
        raise InvalidArgumentError(
            'time_input="index" and `chain` go together, as in ScoreModel(net, chain.sde(), "noise", '
            'time_input="index", chain=chain).'
        )
    if callable(time_input):
        return lambda n: time_input(n.t.clone())
    if chain is not None:
        return lambda n: chain.label(2 * n.lam)
    return TIME_INPUTS[time_input]


def _check_scale(sde: AffineSDE, input_scale: str, chain: Chain) -> None:
    """Refuse a process that scales the data otherwise than the chain does at the same log-SNR."""
    with torch.no_grad():
        nodes = sde.nodes(torch.linspace(sde.t_min, sde.t_max, 5, dtype=torch.float64)[1:-1])
    wanted = chain.scale(2 * nodes.lam)
    got = nodes.alpha if input_scale == "x" else torch.ones_like(wanted)
    if not torch.allclose(got, wanted, rtol=1e-6):
        raise InvalidArgumentError(
            f"The networks of {chain!r} expect data scaled by {float(wanted[-1]):.4g} where the log-SNR is "
            f"{2 * float(nodes.lam[-1]):.4g}, but {sde!r} with input_scale={input_scale!r} scales it by "
            f"{float(got[-1]):.4g}; take chain.sde()."
        )


def _doubled(x: Tensor) -> Tensor:
    """A tensor like ``x`` with twice the channels (axis 1), without storage."""
    return x.new_empty(()).expand(x.shape[0], 2 * x.shape[1], *x.shape[2:])


def _per_sample(value: Scalar, batch: int, device: torch.device) -> Tensor:
    """A schedule value as float64 ``(batch,)``."""
    if isinstance(value, Tensor):
        return value.to(device).expand(batch)
    return torch.full((batch,), value, dtype=torch.float64, device=device)
