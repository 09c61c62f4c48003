"""Loops of eight methods as a good engineer writes them by hand: coefficients computed before the first step, times as
one table, states and history in buffers that are written in place. They are the limit that `benchmarks.overhead`
compares with.

Each is for a process with alpha and sigma, and a network ``net(x, t)`` of the method's own prediction.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import scoresde
from scoresde.solvers.families.exponential import Frame, frame, interpolation_weights, moments

Net = Callable[[Tensor, Tensor], Tensor]
Loop = Callable[[Tensor, torch.Generator], Tensor]
Nodes = Sequence[scoresde.Node[float]]


def table(nodes: Nodes, batch: int) -> Tensor:
    """The times that a network gets, ``(nodes, batch)``."""
    return torch.tensor([node.t for node in nodes], dtype=torch.float32)[:, None].expand(-1, batch).contiguous()


def two_terms(rows: list[tuple[float, float]], net: Net, nodes: Nodes, batch: int) -> Loop:
    """Steps ``a x + b net``."""
    times = table(nodes, batch)

    def loop(x: Tensor, generator: torch.Generator) -> Tensor:
        for (a, b), t in zip(rows, times, strict=False):
            out = net(x, t)
            x = x.mul_(a).add_(out, alpha=b)
        return x

    return loop


def ddim(net: Net, nodes: Nodes, batch: int) -> Loop:
    r""":math:`x_s = \frac{\alpha_s}{\alpha_t}x + (\sigma_s - \frac{\alpha_s}{\alpha_t}\sigma_t)\hat\varepsilon`."""
    rows = [(s.alpha / t.alpha, s.sigma - s.alpha / t.alpha * t.sigma) for t, s in itertools.pairwise(nodes)]
    return two_terms(rows, net, nodes, batch)


def euler(net: Net, nodes: Nodes, batch: int) -> Loop:
    r""":math:`x_s = (1+hf)x + \frac{h g^2}{2\sigma}\hat\varepsilon`, h = s - t."""
    steps = itertools.pairwise(nodes)
    rows = [(1 + (s.t - t.t) * t.f, (s.t - t.t) * t.g2 / (2 * t.sigma)) for t, s in steps]
    return two_terms(rows, net, nodes, batch)


def euler_maruyama(net: Net, nodes: Nodes, batch: int) -> Loop:
    r""":math:`x_s = (1+hf)x + \frac{h g^2}{\sigma}\hat\varepsilon + g\sqrt{|h|}\,z`."""
    steps = itertools.pairwise(nodes)
    rows = [(1 + (s.t - t.t) * t.f, (s.t - t.t) * t.g2 / t.sigma, math.sqrt(t.g2 * abs(s.t - t.t))) for t, s in steps]
    times = table(nodes, batch)

    def loop(x: Tensor, generator: torch.Generator) -> Tensor:
        z = torch.empty_like(x)
        for (a, b, c), t in zip(rows, times, strict=False):
            out = net(x, t)
            x.mul_(a).add_(out, alpha=b).add_(z.normal_(generator=generator), alpha=c)
        return x

    return loop


def heun(net: Net, nodes: Nodes, batch: int) -> Loop:
    r"""Two drifts :math:`k = fx + \frac{g^2}{2\sigma}\hat\varepsilon`, and their mean."""
    rows = []
    for t, s in itertools.pairwise(nodes):
        h, a, b = s.t - t.t, t.g2 / (2 * t.sigma), s.g2 / (2 * s.sigma)
        rows.append((1 + h * t.f, h * a, 1 + 0.5 * h * t.f, 0.5 * h * a, 0.5 * h * s.f, 0.5 * h * b))
    times = table(nodes, batch)

    def loop(x: Tensor, generator: torch.Generator) -> Tensor:
        y = torch.empty_like(x)
        for (a, b, c, d, e, f), t, s in zip(rows, times, times[1:], strict=False):
            out = net(x, t)
            torch.mul(x, a, out=y).add_(out, alpha=b)
            x.mul_(c).add_(out, alpha=d)
            out = net(y, s)
            x.add_(y, alpha=e).add_(out, alpha=f)
        return x

    return loop


def multistep(prediction: str, keep: int, net: Net, nodes: Nodes, batch: int, halved: bool) -> Loop:
    """Exponential Adams steps over the last estimates; ``halved``: the second moment of two nodes is half the first."""
    rows = []
    for i, (t, s) in enumerate(itertools.pairwise(nodes)):
        known = nodes[max(0, i + 1 - keep) : i + 1][::-1]
        part = frame(prediction, t, s)
        rows.append((part.keep, [part.gain * part.h * w for w in weights_of(known, t, part, halved)]))
    times = table(nodes, batch)

    def loop(x: Tensor, generator: torch.Generator) -> Tensor:
        kept = [torch.empty_like(x) for _ in range(keep - 1)]
        for i, ((a, weights), t) in enumerate(zip(rows, times, strict=False)):
            out = net(x, t)
            x.mul_(a).add_(out, alpha=weights[0])
            for j, w in enumerate(weights[1:], 1):
                x.add_(kept[(i - j) % (keep - 1)], alpha=w)
            kept[i % (keep - 1)].copy_(out)
        return x

    return loop


def weights_of(known: Nodes, start: scoresde.Node[float], part: Frame, halved: bool) -> list[float]:
    """The weights of estimates at some nodes, in a step."""
    h, z = part.h, part.z
    places = [(node.lam - start.lam) / h for node in known]
    exact = moments(len(places), z)
    if halved and len(places) == 2:
        exact[1] = 0.5 * exact[0]
    return interpolation_weights(places, exact)  # type: ignore[return-value]


def dpmpp_2m(net: Net, nodes: Nodes, batch: int) -> Loop:
    """DPM-Solver++ (2M)."""
    return multistep("data", 2, net, nodes, batch, halved=True)


def dpm_3m(net: Net, nodes: Nodes, batch: int) -> Loop:
    """DPM-Solver-3 in multiple steps."""
    return multistep("noise", 3, net, nodes, batch, halved=False)


def unipc2(net: Net, nodes: Nodes, batch: int) -> Loop:
    """UniPC-2: each step is corrected by the estimate at its end, which serves the next."""
    rows = []
    steps = list(itertools.pairwise(nodes))
    for i, (t, s) in enumerate(steps):
        known, part = nodes[max(0, i - 1) : i + 1][::-1], frame("data", t, s)
        before = [part.gain * part.h * w for w in weights_of(known, t, part, halved=True)]
        after = [part.gain * part.h * w for w in weights_of([s, *known], t, part, halved=True)]
        change = [b - a for a, b in zip(before, after[1:], strict=True)]
        rows.append((part.keep, before, after[0], change))
    times = table(nodes, batch)

    def loop(x: Tensor, generator: torch.Generator) -> Tensor:
        spare, kept = torch.empty_like(x), [torch.empty_like(x) for _ in range(2)]
        kept[0].copy_(net(x, times[0]))
        for i, (a, before, new, change) in enumerate(rows):
            torch.mul(x, a, out=spare)
            for j, w in enumerate(before):
                spare.add_(kept[(i - j) % 2], alpha=w)
            x, spare = spare, x
            if i + 1 == len(rows):
                break
            out = net(x, times[i + 1])
            for j, w in enumerate(change):
                x.add_(kept[(i - j) % 2], alpha=w)
            x.add_(out, alpha=new)
            kept[(i + 1) % 2].copy_(out)
        return x

    return loop


def pc(net: Net, nodes: Nodes, batch: int, snr: float = 0.16) -> Loop:
    """A Langevin move, then reverse diffusion."""
    rows = []
    for t, s in itertools.pairwise(nodes):
        a, size = t.alpha / s.alpha, 2 * (snr * t.sigma) ** 2
        b2 = -(t.sigma**2) * math.expm1(2 * (t.lam - s.lam))
        rows.append((size, math.sqrt(2 * size), 2 - a, b2, math.sqrt(b2)))
    times = table(nodes, batch)

    def loop(x: Tensor, generator: torch.Generator) -> Tensor:
        z = torch.empty_like(x)
        for (size, spread, a, b, c), t in zip(rows, times, strict=False):
            out = net(x, t)
            x.add_(out, alpha=size).add_(z.normal_(generator=generator), alpha=spread)
            out = net(x, t)
            x.mul_(a).add_(out, alpha=b).add_(z.normal_(generator=generator), alpha=c)
        return x

    return loop


# Each loop, what its network predicts, and the options by which `solve` takes the same steps.
LOOPS: dict[str, tuple[Callable[..., Loop], str, dict[str, str]]] = {
    "euler": (euler, "noise", {}),
    "ddim": (ddim, "noise", {}),
    "dpmpp_2m": (dpmpp_2m, "data", {"start_up": "published"}),
    "dpm_3m": (dpm_3m, "noise", {"start_up": "published"}),
    "unipc2": (unipc2, "data", {"start_up": "published"}),
    "heun": (heun, "noise", {}),
    "euler_maruyama": (euler_maruyama, "noise", {}),
    "pc": (pc, "score", {}),
}
