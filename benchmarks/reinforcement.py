r"""Fine-tuning by reinforcement learning, beside the best that is possible at the same divergence.

**Digits.** The shipped network of digits is fine-tuned towards a reward by a clipped policy gradient on recorded paths
(`scoresde.paths.log_prob`), with the divergence from the original network in closed form (`scoresde.paths.kl`) as a
penalty. Rewards: ``ink``, the mean grey level; ``loops``, the number of closed loops of the thresholded image, which
has no gradient; ``seven``, the log-probability of a class by a logistic regression that is fitted to the digits. The
parameters that are trained are those with one dimension and those that read the noise level, since the gradient of all
parameters is mostly chance. What a step gains is the reward less what was to be expected before it, and the last steps,
before which the reward is nearly known, are left out. The settings were chosen on ``ink`` with another seed.

Let q be the samples of the fine-tuned network and p those of the original one. Among all q with a given divergence
KL(q|p), the tilted distribution :math:`p\,e^{r/\beta}/Z` has the largest mean reward. Its reward and divergence follow
from samples of p alone (`BASE` of them), as does what rejection would draw. Of the fine-tuned network the divergence of
whole paths is taken, which is at least that of the samples. Shown are the gain of the reward over that of p, the gain
of the tilted distribution at the same divergence, their ratio, and that of best-of-n at the same divergence, which
takes n times the evaluations for every sample delivered, while the fine-tuned network takes those of one, after a
training whose evaluations are stated. Standard errors are over samples; the spread over trainings is not known. The
loss has the divergence along the paths that were drawn: its gradient leaves out how the paths change, as is usual.

**One dimension.** On a problem with a linear score, where the gradient of the mean reward is known, the mean of the
estimated gradient (bias, as z), and its spread per path relative to the gradient, with and without the mean of the
rewards as a baseline.

``python -m benchmarks reinforcement`` writes ``results/reinforcement.json``; ``--only`` takes some of the rewards, and
``--quick`` runs one dimension and a few iterations of ``ink``.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

import scoresde
from benchmarks._record import RESULTS, write
from benchmarks._tables import load
from scoresde import paths

F64 = torch.float64
SDE = scoresde.VPSDE()
STEPS, SHAPE = 12, (1, 8, 8)
BATCH, PARTS, TURNS, BASE, FRESH = 256, 2, 90, 8192, 2048
CLIP, RATE, SEED = 0.2, 6e-4, 1
KNOWN = 0.05  # share of the variance of the reward below which a step is not trained on
WANTED = 1.7  # 1/beta, in units of one over the standard deviation of the reward
METHOD: dict[str, Any] = {"method": "ancestral", "steps": STEPS}
Reward = Callable[[Tensor], Tensor]


def ink(x: Tensor) -> Tensor:
    """The mean grey level, in units of its range."""
    return 0.5 * x.flatten(1).mean(1) + 0.5


def loops(x: Tensor) -> Tensor:
    """The number of closed loops: of regions of background that do not touch the border."""
    from scipy import ndimage

    counts = []
    for image in (x[:, 0] > 0).cpu().numpy():
        labels, count = ndimage.label(~image)
        border = {*labels[0], *labels[-1], *labels[:, 0], *labels[:, -1]} - {0}
        counts.append(count - len(border))
    return torch.tensor(counts, dtype=x.dtype)


def classifier() -> torch.nn.Linear:
    """A logistic regression on the digits, fitted with a seed."""
    split = scoresde.training.digits_split()
    x, labels = split.train_images.float().flatten(1) / 8 - 1, split.train_labels
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 10)
    optimiser = torch.optim.LBFGS(linear.parameters(), max_iter=200)

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(linear(x), labels) + 1e-3 * linear.weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)  # type: ignore[arg-type]
    return linear.requires_grad_(False)


def all_rewards() -> dict[str, Reward]:
    """The rewards by their names."""
    linear = classifier()
    return {"ink": ink, "loops": loops, "seven": lambda x: linear(x.flatten(1)).log_softmax(1)[:, 7]}


def drawn(model: Any, count: int, seed: int) -> Iterator[paths.Path]:
    """Paths of a network, in batches."""
    for first in range(0, count, 256):
        shape = (min(256, count - first), *SHAPE)
        solution = scoresde.solve(SDE, model, shape=shape, seed=seed + first, path_log_prob=True, **METHOD)
        yield solution.path


def advantages(path: paths.Path, rewards: Tensor, model: Any, reward_of: Reward) -> Tensor:
    """By how much the reward exceeds what was to be expected before each step, ``(batch, steps)``.

    The expectation is a straight line, fitted to the batch, in the reward of the data that the network predicts from
    the state before the step. But for the sample's own part in the fit (1/128 on average) it does not depend on the
    draw of the step, so that the mean gradient stays the same, while late steps, before which the reward is nearly
    certain, add little to its spread.
    """
    columns, before = [], path.start
    for t, after in zip(path.times[:-1].tolist(), path.states, strict=True):
        node = SDE.node(t)
        with torch.no_grad():
            data = (before + node.sigma**2 * model(before, t)) / node.alpha
        known = torch.stack([torch.ones_like(rewards), reward_of(data)], 1).to(F64)
        line = torch.linalg.pinv(known) @ rewards.to(F64)
        columns.append(rewards.to(F64) - known @ line)
        before = after
    return torch.stack(columns, 1)


def _count(counted: list[int], out: Tensor) -> None:
    counted[0] += len(out)
    if out.requires_grad:
        out.register_hook(lambda gradient: counted.__setitem__(1, counted[1] + len(gradient)))


def fine_tuned(reward_of: Reward, unit: float, turns: int, seed: int = SEED) -> tuple[Any, list[dict[str, float]]]:
    """The fine-tuned score function, and the curves of its training.

    Args:
        reward_of: the reward.
        unit: what is worth one nat of divergence.
        turns: each draws paths and takes `PARTS` steps of Adam, each with other paths; the step size falls to 0.
        seed: of the samples.
    """
    base = scoresde.load("digits")
    original = base.score(SDE)
    net = copy.deepcopy(base.net).requires_grad_(False)
    trained = [
        weight.requires_grad_(True)
        for name, weight in net.named_parameters()
        if weight.ndim == 1 or name.startswith("noise") or "film" in name
    ]
    model = base.config.model(net, base.native or SDE, base.chain, context={"label": 10}).on(SDE)
    counted = [0, 0]  # samples through the networks, forwards and backwards
    for network in (net, base.net):
        network.register_forward_hook(lambda module, given, out: _count(counted, out))
    optimiser = torch.optim.Adam(trained, lr=RATE)
    falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, turns)
    curves = []
    for turn in range(turns):
        seeds = 10_000 + 1000 * seed + turn
        solution = scoresde.solve(SDE, model, shape=(BATCH, *SHAPE), seed=seeds, path_log_prob=True, **METHOD)
        whole, reward = solution.path, reward_of(solution.x)
        gains = advantages(whole, reward, model, reward_of) / unit
        early = [step for step in range(STEPS) if float(gains[:, step].var()) > KNOWN * float(gains[:, 0].var())]
        gains = gains[:, early]
        row = {"reward": float(reward.mean()), "kl": 0.0, "clipped": 0.0}
        for part, rows in enumerate(torch.arange(BATCH).chunk(PARTS)):
            path, advantage = whole[rows], gains[rows]
            ratio = paths.log_ratio(path, model, per_step=True, steps=early).exp()
            clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
            gain = torch.minimum(ratio * advantage, clipped * advantage)
            divergence = 2 * paths.kl(path, model, original, steps=range(part % 2, STEPS, 2))  # every other step, twice
            loss = (divergence - gain.sum(1)).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 5.0)
            optimiser.step()
            row["kl"] += float(divergence.detach().mean()) / PARTS
            row["clipped"] += float((clipped != ratio).double().mean()) / PARTS
        falling.step()
        row |= {"evaluations": counted[0] / BATCH, "backward": counted[1] / BATCH}  # per path so far
        curves.append(row)
        if turn % 10 == 0:
            print(turn, {key: round(value, 4) for key, value in row.items()}, flush=True)
    net.requires_grad_(False)
    return model, curves


class Tilted(NamedTuple):
    r"""The distribution :math:`p\,e^{r/\beta}/Z`, from samples of p: its mean reward, the effective share of the
    samples, and how many of them rejection takes for one (at least: the largest reward may not be among them)."""

    reward: float
    share: float
    tries: float


def tilted(rewards: Tensor, divergence: float) -> Tilted:
    """The one with a given divergence from p."""

    def weights(slope: float) -> Tensor:
        return (slope * rewards).softmax(0)

    def divergence_at(slope: float) -> float:
        shares = weights(slope)
        return float((shares * (len(rewards) * shares).log().nan_to_num(neginf=0.0)).sum())

    low, high = 0.0, 1.0
    while divergence_at(high) < divergence and high < 1e6:
        high *= 2
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if divergence_at(middle) < divergence else (low, middle)
    shares = weights(low)
    count = len(rewards)
    return Tilted(
        float((shares * rewards).sum()), 1 / float(shares.square().sum()) / count, count * float(shares.max())
    )


def best_of(rewards: Tensor, divergence: float) -> tuple[float, float]:
    """The mean reward of the best of n samples of p, and n, with a given divergence from p.

    The best of n is at most v with probability F(v)^n, also where values occur more than once; its divergence is that
    of the rewards' laws. For rewards that all differ it is ln n - (n - 1)/n.
    """
    values, counts = rewards.sort().values.unique_consecutive(return_counts=True)
    shares = counts / counts.sum()
    below = torch.cat([torch.zeros(1, dtype=F64), shares.cumsum(0)]).clamp(max=1.0)

    def best(n: float) -> Tensor:
        return (below**n).diff()

    def divergence_at(n: float) -> float:
        return float(torch.xlogy(best(n), best(n) / shares).sum())

    low, high = 1.0, 1e9
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if divergence_at(middle) < divergence else (low, middle)
    return float((best(low) * values).sum()), low


def measured(reward_of: Reward, turns: int) -> dict[str, Any]:
    """A reward."""
    original = scoresde.load("digits").score(SDE)
    base = torch.cat([reward_of(path.states[-1]) for path in drawn(original, BASE, 1_000_000)]).to(F64)
    model, curves = fine_tuned(reward_of, float(base.std()) / WANTED, turns)
    rewards, divergences = [], []
    for path in drawn(model, FRESH, 2_000_000):
        rewards.append(reward_of(path.states[-1]).to(F64))
        with torch.no_grad():
            divergences.append(paths.kl(path, model, original))
    reward, start, kl = torch.cat(rewards), float(base.mean()), float(torch.cat(divergences).mean())
    optimum, (best, n) = tilted(base, kl), best_of(base, kl)
    gain, most = float(reward.mean()) - start, optimum.reward - start
    return {
        "original": start,
        "fine-tuned": float(reward.mean()),
        "standard error": float(reward.std()) / math.sqrt(len(reward)),
        "kl": kl,
        "tilted": optimum.reward,
        "effective share of the tilted": optimum.share,
        "gain over the largest": gain / most,
        "best of n": best,
        "gain of best of n over the largest": (best - start) / most,
        "evaluations per sample": {"fine-tuned": STEPS, "best of n": n * STEPS, "rejection": optimum.tries * STEPS},
        "training samples": BATCH * turns,
        "curves": curves,
    }


def one_dimension(count: int = 40_000, chunks: int = 200) -> dict[str, float]:
    r"""The gradient of :math:`E x^2` in the factor a of the score :math:`-a x`, estimated from paths and exact.

    The chain is linear, :math:`x' = k(a) x + S z`, so that the variance of its end, which is :math:`E x^2`, is a
    function of a, which autograd differentiates.
    """
    a = torch.ones((), dtype=F64, requires_grad=True)
    times = torch.linspace(1.0, 0.05, 9, dtype=F64)
    variance = torch.ones((), dtype=F64)
    nodes = [SDE.node(float(t)) for t in times]
    for start, stop in itertools.pairwise(nodes):
        shrink = -math.expm1(2 * (start.lam - stop.lam))
        keep = start.alpha / stop.alpha * (stop.sigma / start.sigma) ** 2
        data = (1 - start.sigma**2 * a) / start.alpha
        variance = (keep + stop.alpha * shrink * data) ** 2 * variance + stop.sigma**2 * shrink
    (exact,) = torch.autograd.grad(variance, a)
    path = scoresde.solve(
        SDE,
        lambda x, t: -x,
        method="ancestral",
        grid=times,
        shape=(count, 1),
        seed=0,
        dtype=F64,
        path_log_prob=True,
    ).path
    rewards = path.states[-1][:, 0].square()
    found: dict[str, float] = {"exact": float(exact)}
    for name, baseline in (("with a baseline", float(rewards.mean())), ("without", 0.0)):
        gradients = []
        for rows in torch.arange(count).split(count // chunks):
            density = paths.log_prob(path[rows], SDE, lambda x, t: -a * x)
            value = ((rewards[rows] - baseline) * density).mean()
            gradients.append(torch.autograd.grad(value, a)[0])
        each = torch.stack(gradients)
        found[f"mean {name}"] = float(each.mean())
        found[f"z {name}"] = float((each.mean() - exact) / (each.std() / math.sqrt(chunks)))
        found[f"spread per path {name}"] = float(each.std() * math.sqrt(count // chunks) / exact.abs())
    return found


def training_cost() -> dict[str, float]:
    """Evaluations per path of training, and how many of them are followed by a backward pass, in its first turn."""
    _, (row,) = fine_tuned(ink, 0.015, 1)
    return {key: row[key] for key in ("evaluations", "backward")}


def check(results: dict[str, Any]) -> list[str]:
    """The bars that are missed."""
    missed = []
    for name, row in results.get("digits", {}).items():
        if row["gain over the largest"] < 0.7:
            missed.append(f"{name}: {row['gain over the largest']:.2f} of the largest gain")
        if row["gain over the largest"] > 1 + 4 * row["standard error"] / (row["tilted"] - row["original"]):
            missed.append(f"{name}: more than is possible")
        if row["effective share of the tilted"] * BASE < 100:
            missed.append(f"{name}: too few samples show the tilted distribution")
    line = results["one dimension"]
    missed += [f"{name}: {line[name]:.2f}" for name in ("z with a baseline", "z without") if abs(line[name]) > 3.5]
    return missed


def main(arguments: list[str]) -> None:
    """Run, print, and write or check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks reinforcement", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one dimension and a few iterations; nothing is written")
    parser.add_argument("--only", nargs="*", help="some of the rewards; the others stay as they are")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results: dict[str, Any] = {"digits": {}, "one dimension": one_dimension(), "training": training_cost()}
    print(results["one dimension"])
    if options.quick:
        _, curves = fine_tuned(ink, 0.03, 3)
        print(curves)
    else:
        for name, reward_of in all_rewards().items():
            if options.only and name not in options.only:
                continue
            print(name, flush=True)
            row = measured(reward_of, TURNS)
            print({key: value for key, value in row.items() if key != "curves"}, flush=True)
            if options.only and (RESULTS / "reinforcement.json").exists():  # others may have been added meanwhile
                results["digits"] = load("reinforcement")["results"]["digits"]
            results["digits"][name] = row
            write("reinforcement", results, "python -m benchmarks reinforcement")
    if missed := check(results):
        sys.exit("\n".join(missed))
