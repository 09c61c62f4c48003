r"""The posterior of many observations from the posteriors of single ones.

For observations that are independent given :math:`\theta`, Bayes' rule gives the distribution of clean given noisy
parameters,

.. math:: p(\theta_0|\theta_t, x_{1:n}) \propto p(\theta_0|\theta_t)^{1-n}\prod_i p(\theta_0|\theta_t, x_i).

With every factor taken for a Gaussian of its own mean, which is the data estimate of its score, and of precision P, the
mean of the product is a weighted mean of data estimates, and so is its score of scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError, ScoreFnError
from ..core.support.checks import check_integer, check_tensor, form
from ..core.support.context import is_rows, mapped, per_row, repeated
from ..core.support.tensors import expand
from ..scores.wrapper import AffineSDE, Estimate, Node, Score, ScoreFn, Wrapper, as_score
from ..targets.base import Target
from .gradient import blocked_score
from .together import unclear

_FLOOR = 1e-6  # of a precision, in units of that of the noise


class _Precisions(NamedTuple):
    """Precisions of the single posteriors, ``(n, 1 or batch, D, D)``, and of the joint one, ``(1 or batch, D, D)``."""

    single: Tensor
    total: Tensor


class Tall(Wrapper):
    """See `tall`."""

    def __init__(
        self,
        score_fn: ScoreFn,
        prior: Target | ScoreFn,
        observations: Mapping[str, Tensor] | Sequence[str],
        covariances: Tensor | str | None,
        prior_covariance: Tensor | None,
        chunk: int | None,
        sde: AffineSDE | None,
    ) -> None:
        given, single = prior, as_score(score_fn)
        known = single.sde if sde is None else sde
        if isinstance(prior, Target):
            if not isinstance(known, AffineSDE):
                raise InvalidArgumentError(
                    "`sde` is missing, and this score function does not declare its own; pass sde=…."
                )
            prior = prior.score(known)
        super().__init__((single, prior), sde)
        self.names = _names(single, observations)
        self.observations = _observations(observations) if isinstance(observations, Mapping) else None
        self.chunk = None if chunk is None else check_integer("chunk", chunk, low=1)
        self.covariances = covariances if isinstance(covariances, str) else None
        self.precisions: _Precisions | None = None
        if covariances is not None:
            wide = _covariance_of(given) if prior_covariance is None else prior_covariance
            self.base = _inverses("prior_covariance", check_tensor("prior_covariance", wide)[None], 1)[0]
        elif prior_covariance is not None:
            raise InvalidArgumentError("`prior_covariance` is used with `covariances` only; leave it out.")
        if isinstance(covariances, str):
            if self.observations is not None or covariances in self.names:
                raise InvalidArgumentError(
                    f"`covariances` may name an entry of the context where `observations` do, and a different one, got "
                    f"{covariances!r}."
                )
        elif covariances is not None:
            count = None if self.observations is None else len(next(iter(self.observations.values())))
            self.precisions = _together(_inverses("covariances", covariances, count)[:, None], self.base)
        limit = self.has_noise_limit and covariances is not None
        self.traits = replace(self.traits, noise_limit=limit, variance=False)

    def accepts(self, name: str) -> bool:
        """Like the score function, except for the observations: those of a mapping are given, others belong to the
        context."""
        if name in self.names:
            return self.observations is None
        return name == self.covariances or self.score_fns[0].accepts(name)

    @property
    def context_arguments(self) -> Mapping[str, bool]:
        """See `Score.context_arguments`; missing observations have an error of their own."""
        own = {**dict.fromkeys(self.names, False), **({self.covariances: False} if self.covariances else {})}
        return {**super().context_arguments, **own}

    def estimate(self, x: Tensor, node: Node, **context: object) -> Estimate:
        """See `Score.estimate`."""
        observed = self._observed(x, context)
        rest = {k: v for k, v in context.items() if k not in self.names and k != self.covariances}
        if self.precisions is None and self.covariances is None:
            return self._by_jacobians(x, node, observed, rest)
        return self._by_covariances(x, node, observed, rest, self._known(context, len(x), _count(observed)))

    def _observed(self, x: Tensor, context: dict[str, object]) -> dict[str, Tensor]:
        """The observations of each sample, ``(n, batch, …)``."""
        if self.observations is not None:
            given = {k: v.to(x.device) for k, v in self.observations.items()}
            return {k: v.unsqueeze(1).expand(len(v), len(x), *v.shape[1:]) for k, v in given.items()}
        found: dict[str, Tensor] = {}
        for name in self.names:
            value = context.get(name)
            if not isinstance(value, Tensor) or value.ndim < 2 or len(value) != len(x) or not value.shape[1]:
                raise InvalidArgumentError(
                    f"`context[{name!r}]` must be the observations of each sample, ({len(x)}, n, …), got {form(value)}."
                )
            found[name] = value.transpose(0, 1)
        return _same_count("context", found)

    def _known(self, context: dict[str, object], batch: int, count: int) -> _Precisions:
        """The precisions of the single posteriors, of as many as are observed."""
        if self.precisions is not None:
            if len(self.precisions.single) != count:
                raise InvalidArgumentError(
                    f"`covariances` are for {len(self.precisions.single)} observations, but the context has {count}."
                )
            return self.precisions
        given = context.get(str(self.covariances))
        if not isinstance(given, Tensor) or given.shape[:2] != (batch, count):
            raise InvalidArgumentError(
                f"`context[{self.covariances!r}]` must be ({batch}, {count}, D, D), or variances ({batch}, {count}, "
                f"D), got {form(given)}."
            )
        inverse = _inverses("covariances", given.flatten(0, 1), batch * count)
        return _together(inverse.unflatten(0, (batch, count)).transpose(0, 1), self.base)

    def _by_covariances(
        self, x: Tensor, node: Node, observed: dict[str, Tensor], context: dict[str, object], known: _Precisions
    ) -> Estimate:
        if len(self.base) != x[:1].numel():
            raise InvalidArgumentError(
                f"`covariances` are for events of {len(self.base)} numbers, those of the state have {x[:1].numel()}."
            )
        base = self.ask(self.score_fns[1], x, node, {}, keep=True)
        total = known.total.to(x.device)
        alpha2, sigma2 = (expand(v * v, total) for v in (node.alpha, node.sigma))
        one = torch.eye(len(self.base), dtype=torch.float64, device=x.device)
        factor = torch.linalg.cholesky(total * sigma2 + one * alpha2)  # (1 or batch, D, D)
        off = [torch.zeros_like(v, dtype=torch.float64) for v in base]
        for rows, some in self._chunks(observed):
            estimates = self._ask(x, node, some, context)
            for precision, estimate in zip(known.single[rows].to(x.device), estimates, strict=True):
                weight = torch.cholesky_solve(precision * sigma2 + one * alpha2, factor)
                off = [o + _times(weight, e - b) for o, e, b in zip(off, estimate, base, strict=True)]
        return base._replace(data=base.data + off[0].to(x.dtype), noise=base.noise + off[1].to(x.dtype))

    def _by_jacobians(self, x: Tensor, node: Node, observed: dict[str, Tensor], context: dict[str, object]) -> Estimate:
        base, wide = self._with_jacobian(x, node, lambda y: [self.ask(self.score_fns[1], y, node, {}, keep=True)])
        total = (1 - _count(observed)) * wide[0]
        weighted = [torch.zeros_like(v, dtype=torch.float64) for v in base[0]]
        widest = total.new_full((len(x),), torch.inf)
        for _, some in self._chunks(observed):
            estimates, narrow = self._with_jacobian(x, node, lambda y, some=some: self._ask(y, node, some, context))
            total, widest = total + narrow.sum(0), torch.minimum(widest, _least(narrow).amin(0))
            for estimate, inverse in zip(estimates, narrow, strict=True):
                parts = zip(weighted, estimate, base[0], strict=True)
                weighted = [w + _times(inverse, e - b) for w, e, b in parts]
        total = (total + total.mT) / 2
        floor = torch.maximum(widest, _FLOOR * torch.as_tensor(node.alpha).to(widest))
        inverse = torch.linalg.inv(total + _lacking(total, floor))
        data, noise = (_times(inverse, w) for w in weighted)
        return base[0]._replace(data=base[0].data + data.to(x.dtype), noise=base[0].noise + noise.to(x.dtype))

    def _with_jacobian(self, x: Tensor, node: Node, ask: Any) -> tuple[list[Estimate], Tensor]:
        r"""Estimates, and the inverses of the Jacobians of :math:`\hat x`, ``(estimates, batch, D, D)`` float64."""
        outside = torch.is_grad_enabled() and x.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            y = x if outside else x.detach().clone().requires_grad_()
            estimates = ask(y)
            data = torch.stack([e.data for e in estimates]).flatten(2)  # (estimates, batch, D)
            if not all(part.requires_grad for e in estimates for part in e):
                raise blocked_score("give `covariances` to do without its Jacobian")
            rows = []
            for one in data:
                slopes = [
                    torch.autograd.grad(one[:, d].sum(), y, retain_graph=True, create_graph=outside)[0].flatten(1)
                    for d in range(data.shape[2])
                ]
                rows.append(torch.stack(slopes, dim=1))
        jacobian = torch.stack(rows).to(torch.float64)
        if not outside:
            estimates, jacobian = [Estimate(*(v.detach() for v in e)) for e in estimates], jacobian.detach()
        _check_positive(jacobian, node)
        return estimates, torch.linalg.inv(jacobian)

    def _chunks(self, observed: dict[str, Tensor]) -> Iterator[tuple[slice, dict[str, Tensor]]]:
        """The observations, as many as are evaluated at once."""
        count = _count(observed)
        size = count if self.chunk is None else self.chunk
        for first in range(0, count, size):
            rows = slice(first, first + size)
            yield rows, {k: v[rows] for k, v in observed.items()}

    def _ask(self, x: Tensor, node: Node, some: dict[str, Tensor], context: dict[str, object]) -> list[Estimate]:
        """The estimates given some observations, in one call, where it is known what to repeat in it."""
        count = _count(some)
        root, bound = self.score_fns[0].unbound({})
        bound = {k: v for k, v in bound.items() if k not in context and k not in some}
        every = per_row(bound, x, tables=True) | context
        if unclear(root, every, len(x)):
            asked = [every | {k: v[i] for k, v in some.items()} for i in range(count)]
            return [Estimate(*self.ask(root, x, node, given, keep=True)[:2]) for given in asked]
        every = mapped(lambda v: repeated(v, count) if is_rows(v, len(x)) else v, every)
        given = every | {k: v.flatten(0, 1) for k, v in some.items()}
        whole = self.ask(root, torch.cat([x] * count), Node(*(repeated(v, count) for v in node)), given)
        return [Estimate(*pair) for pair in zip(*(v.chunk(count) for v in whole[:2]), strict=True)]


def _count(observed: Mapping[str, Tensor]) -> int:
    return len(next(iter(observed.values())))


def _times(matrix: Tensor, v: Tensor) -> Tensor:
    """A matrix ``(D, D)`` or ``(batch, D, D)`` times flattened events, in float64."""
    flat = v.flatten(1).to(torch.float64)
    return (matrix @ flat[..., None])[..., 0].reshape(v.shape)


def _check_positive(jacobians: Tensor, node: Node) -> None:
    r"""Refuse Jacobians ``(estimates, batch, D, D)`` of data estimates that are not those of a score, which are
    :math:`(\alpha/\sigma^2)\,\mathrm{Cov}[\theta_0|\theta_t]`."""
    finite = bool(jacobians.isfinite().all())
    if finite and bool(((least := _least(jacobians)) > 0).all()):
        return
    found = f"has the eigenvalue {float(least.min()):.3g}" if finite else "is not finite"
    raise ScoreFnError(
        "Without `covariances`, `tall` takes them from the Jacobian of the data estimate, which must be positive "
        f"definite; at t={float(torch.as_tensor(node.t).max()):.4g} it {found}. Many networks are wrong there at high "
        "noise, where the data estimate hardly depends on the state. Give `covariances`, such as those of a few "
        "hundred samples of each single posterior."
    )


def _least(matrices: Tensor) -> Tensor:
    """The smallest eigenvalues of matrices ``(…, D, D)``."""
    return torch.linalg.eigvalsh((matrices + matrices.mT).detach() / 2)[..., 0]


def _lacking(total: Tensor, floor: Tensor) -> Tensor:
    """What symmetric matrices ``(batch, D, D)`` lack to eigenvalues of ``floor`` ``(batch,)``."""
    with torch.no_grad():
        values, axes = torch.linalg.eigh(total)
        return axes * (floor[:, None] - values).clamp_min(0)[:, None] @ axes.mT


def _names(score_fn: Score, given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Mapping | Sequence) or not given:
        raise InvalidTypeError(
            "`observations` must be a mapping from the names of the context to tensors (n, …), such as {'y': y}, or "
            f"the names, such as ['y'], of a context (batch, n, …), got {type(given).__name__}."
        )
    for name in given:
        if not isinstance(name, str) or name in ("x", "t", "node") or not score_fn.accepts(name):
            raise InvalidArgumentError(
                f"`observations` must have names that the score function takes besides x and t, got {name!r}."
            )
    return tuple(given)


def _observations(given: Mapping[str, object]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in given.items():
        if not isinstance(value, Tensor) or value.ndim == 0 or len(value) == 0:
            raise InvalidArgumentError(
                f"`observations[{name!r}]` must be a tensor (n, …), one entry per observation, got {form(value)}."
            )
        found[name] = value.detach()
    return _same_count("observations", found)


def _same_count(what: str, given: dict[str, Tensor]) -> dict[str, Tensor]:
    if len({len(v) for v in given.values()}) > 1:
        sizes = {k: len(v) for k, v in given.items()}
        raise InvalidArgumentError(f"`{what}` must have the same number of observations under every name, got {sizes}.")
    return given


def _inverses(name: str, given: Any, count: int | None) -> Tensor:
    """The inverses of covariances ``(count, D, D)``, or of variances ``(count, D)``, float64."""
    cov = check_tensor(name, given).detach().to("cpu", torch.float64)
    cov = torch.diag_embed(cov) if cov.ndim == 2 else cov
    if cov.ndim != 3 or len(cov) != (len(cov) if count is None else count) or cov.shape[1] != cov.shape[2]:
        lead = "" if name == "prior_covariance" else f"{'n' if count is None else count}, "
        raise InvalidArgumentError(
            f"`{name}` must be ({lead}D, D) over the flattened event, or variances ({lead}D), got {tuple(given.shape)}."
        )
    if not bool(cov.isfinite().all()) or not torch.allclose(cov, cov.mT, rtol=1e-4, atol=1e-8):
        raise InvalidArgumentError(f"`{name}` must be finite and symmetric.")
    least = float(torch.linalg.eigvalsh(cov).amin()) if len(cov) else 1.0
    if least <= 0:
        raise InvalidArgumentError(f"`{name}` must be positive definite; the smallest eigenvalue is {least:.3g}.")
    inverse = torch.linalg.inv((cov + cov.mT) / 2)
    return (inverse + inverse.mT) / 2


def _together(single: Tensor, base: Tensor) -> _Precisions:
    """The precisions from those of single posteriors ``(n, 1 or batch, D, D)`` and of the prior ``(D, D)``."""
    if base.shape != single.shape[2:]:
        raise InvalidArgumentError(
            f"`covariances` are of {single.shape[2]} parameters, but the prior's of {len(base)}."
        )
    total = single.sum(0) + (1 - len(single)) * base
    least = float(_least(total).amin()) if len(total) else 1.0
    if least <= 0:
        raise InvalidArgumentError(
            f"`covariances` are wider than the prior's in some direction, so that the product of {len(single)} "
            f"posteriors has none (the smallest eigenvalue of its precision is {least:.3g}); estimate them from more "
            f"samples, or leave them out for those of the network's Jacobian."
        )
    return _Precisions(single, total)


def _covariance_of(prior: object) -> Tensor:
    """The covariance ``(D, D)`` of a target."""
    known = prior._covariance() if isinstance(prior, Target) else None
    if known is None:
        raise InvalidArgumentError(
            "`prior_covariance` is missing, and the covariance of a score function is not known; give a target as the "
            "prior, such as targets.Uniform(low, high), or estimate it from parameters: torch.cov(theta.mT)."
        )
    return known


def tall(
    score_fn: ScoreFn,
    prior: Target | ScoreFn,
    observations: Mapping[str, Tensor] | Sequence[str],
    *,
    covariances: Tensor | str | None = None,
    prior_covariance: Tensor | None = None,
    chunk: int | None = None,
    sde: AffineSDE | None = None,
) -> Tall:
    r"""The posterior of parameters :math:`\theta` given n observations, from a network for the posterior of one:

    .. math:: s = s_\lambda + \sum_i\Lambda^{-1}P_i\,(s_i - s_\lambda), \qquad
              \Lambda = \sum_i P_i + (1-n)P_\lambda,

    with :math:`s_i` the score of :math:`p_t(\theta|x_i)`, :math:`s_\lambda` the prior's, and P the precisions of
    :math:`p(\theta_0|\theta_t, x_i)` and :math:`p(\theta_0|\theta_t)`. With ``covariances`` :math:`\Sigma_i` of the
    single posteriors they are :math:`P_i = \Sigma_i^{-1} + (\alpha^2/\sigma^2)I` (GAUSS); without, they are taken from
    the Jacobian of the network, :math:`P_i^{-1} = (\sigma^2/\alpha)\,\partial\hat\theta_i/\partial\theta_t` (JAC).

    Facts:
        One call of the network for all observations, and one of the prior; without ``covariances`` as many products
        with each Jacobian as there are parameters. Exact where the prior and the posteriors are Gaussian; with one
        observation it is that one's posterior; and at the data end, where :math:`\Lambda^{-1}P_i \to I`, the score is
        the right one, so that Langevin moves over many levels have no bias of the composition: begin with
        ``method="langevin", steps=400, snr=0.5``; where ``steps`` times ``snr`` squared is below about 50, the samples
        are too wide. Elsewhere it is an approximation. Any solver takes it.

    Args:
        score_fn: ``score_fn(x, t, **context)``, of the parameters given one observation; every row its own. It sees
            n times the batch.
        prior: a target, such as `scoresde.targets.Uniform` or `scoresde.targets.Gaussian`, or the score function of the
            prior.
        observations: ``{name: (n, …) tensor}``: what the network gets as context, the same for every sample. Or the
            names alone: the solve's ``context`` then has a data set for each sample, ``(batch, n, …)``.
        covariances: ``(n, D, D)`` over the flattened event, or variances ``(n, D)``, for example of samples of the
            single posteriors. With names of observations it may be a name too, of ``(batch, n, D, D)`` in the context.
            None, for the Jacobian, takes a network that is right at high noise too; many are not.
        prior_covariance: ``(D, D)``; a target has its own.
        chunk: observations in a call, to bound memory; None: all.
        sde: the process, if neither declares it.

    Raises:
        InvalidArgumentError: a shape does not fit, or the product of the posteriors would be no distribution.
        ScoreFnError: in a call, the Jacobian is needed, and the gradient is blocked or the Jacobian is not positive
            definite.

    Differs from:
        Geffner et al., whose :math:`(1-n)(1-t)s_\lambda + \sum s_i` is the score of another bridge to the same
        distribution, for Langevin moves only. (Without the factor 1 - t it is `product`, with the prior as ``base``.)
        Linhart et al., where :math:`\Lambda` from the Jacobians has an eigenvalue below the smallest precision of all
        single posteriors: it is raised to that, for the joint posterior is no wider than the widest of them.

    Example:
        >>> sde, prior = scoresde.VPSDE(), scoresde.targets.Gaussian(torch.zeros(1), 1.0)
        >>> def network(
        ...     x, t, y
        ... ):  # the exact score of theta given y = theta + n, n ~ N(0, 1): N(y/2, 1/2)
        ...     alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        ...     return -(x - alpha * y / 2) / (alpha**2 / 2 + sigma**2)
        >>> y = torch.tensor([[1.0], [2.0], [3.0]])
        >>> posterior = tall(
        ...     network, prior, {"y": y}, covariances=torch.full((3, 1), 0.5), sde=sde
        ... )
        >>> x = scoresde.solve(
        ...     sde, posterior, method="dpmpp_2m_sde", shape=(2000, 1), seed=0
        ... ).x
        >>> # N(6/4, 1/4)
        >>> (abs(float(x.mean()) - 1.5) < 0.05, abs(float(x.var()) - 0.25) < 0.03)
        (True, True)

    References:
        Linhart et al. (2024), Diffusion posterior sampling for simulation-based inference in tall data settings.
        https://arxiv.org/abs/2404.07593
        Geffner, Papamakarios, Mnih (2023), Compositional Score Modeling for Simulation-based Inference.
        https://arxiv.org/abs/2209.14249
    """
    return Tall(score_fn, prior, observations, covariances, prior_covariance, chunk, sde)
