r"""Fine-tuning by reinforcement learning, beside the best that is possible at the same divergence.

**Digits.** The shipped network of digits is fine-tuned towards a reward by a clipped policy gradient on recorded paths
(`scoresde.paths.log_prob`), with the divergence from the original network in closed form (`scoresde.paths.kl`) as a
penalty. Rewards: ``ink``, the mean grey level; ``loops``, the number of closed loops of the thresholded image, which
has no gradient; ``seven``, the log-probability of a class by a logistic regression that is fitted to the digits. Only
the steps between the noise levels `LEVELS` are trained, and all others are made by the original network: before them
almost nothing is known of the reward, and after them little is left to change. The advantages are generalised
advantage estimates (Schulman et al., 2016, https://arxiv.org/abs/1506.02438). The settings were chosen on ``loops``
with another seed; the turns of ``seven`` were raised from 60 to 90 after a run with 16 steps, which missed the bar.
Each gradient is that of `REPLAYED` of the steps, drawn at random: the same for the gain and for the penalty, which
nearly cancel in each step where the training has come to rest, so that the choice adds little noise. The weights are
averaged over the last third of the turns.

A *critic*, a small network, is fitted to the rewards of the last paths: V(x) at a noise level. To first order in the
noise z of a step, the reward gains :math:`S \nabla V \cdot z` from it, with S the standard deviation of the step.
Of this part the gradient is known without a draw: that of :math:`\nabla V` times the mean of the step (Q-Prop: Gu et
al., 2017a, https://arxiv.org/abs/1611.02247). The rest of the advantage passes through the ratio of the densities,
which is clipped, with the weight `REST`: with 1 the critic adds no bias, with less the draws add less noise (the
interpolated policy gradient: Gu et al., 2017b, https://arxiv.org/abs/1706.00387).

Let q be the samples of the fine-tuned network and p those of the original one. Among all q with a given divergence
KL(q|p), the tilted distribution :math:`p\,e^{r/\beta}/Z` has the largest mean reward. Its reward and divergence follow
from samples of p alone (`BASE` of them), as does what rejection would draw. Of the fine-tuned network the divergence of
whole paths is taken, which is at least that of the samples. Shown are the gain of the reward over that of p, the gain
of the tilted distribution at the same divergence, their ratio, and that of best-of-n at the same divergence, which
takes n times the evaluations for every sample delivered, while the fine-tuned network takes those of one, after a
training whose evaluations are stated. Standard errors are those of the mean reward of the fine-tuned network; the
spread over trainings is not known. The loss has the divergence along the paths that were drawn: its gradient leaves out
how the paths change, as is usual.

*To first order*, in the limit of a small divergence K, the tilted distribution gains the standard deviation of the
reward times :math:`\sqrt{2K}`. A change of the means of Gaussian steps, from the same start, gains at most the share
:math:`\sqrt{\sum_k E|g_k|^2 / Var(r)}` of that, where :math:`g_k` is the mean of :math:`r z_k` over all continuations
from the state before step k, whose noise is :math:`z_k`: it can follow the reward only as far as that is linear in the
noise of a step. This is no bound at the divergences of the table. It is estimated from `CONTINUATIONS` of each of
`STATES` states, for the steps that begin at the levels `LOOKED_AT`.

**One dimension.** On a problem with a linear score, where the gradient of the mean reward is known, the mean of the
estimated gradient (bias, as z), and its spread per path relative to the gradient, with and without the mean of the
rewards as a baseline.

``python -m benchmarks reinforcement`` writes ``results/reinforcement.json``; ``--only`` takes some of the rewards, and
``--check`` runs one dimension and a few iterations of ``ink``.
"""

from __future__ import annotations

import argparse
import collections
import copy
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import scoresde
from benchmarks._record import RESULTS, write
from benchmarks._tables import load
from scoresde import paths
from scoresde.grids import VPTime

F64 = torch.float64
SDE = scoresde.VPSDE()
STEPS, SHAPE, GRID = 32, (1, 8, 8), VPTime(1.0, 0.25)
LEVELS = (0.07, 6.0)  # sigma/alpha at the beginning of the steps that are trained
BATCH, PARTS, BASE, FRESH = 256, 8, 32768, 8192
TURNS = {"ink": 60, "loops": 300, "seven": 90}
CLIP, RATE, WARM, SEED = 0.2, 3e-4, 5, 1
LAMBDA = 0.5  # of generalised advantage estimation
SMOOTH = 32  # draws around the data estimate
REPLAYED = 10  # steps, drawn at random, in each gradient
WANTED = 0.8  # 1/beta, in units of one over the standard deviation of the reward
STATES, CONTINUATIONS = 192, 48
LOOKED_AT = (0.05, 15.0)
FIRST_ORDER = "first order"
METHOD: dict[str, Any] = {"method": "ancestral", "steps": STEPS, "grid": GRID}
REST = 0.5  # the weight of what the critic does not know of the advantages
MEMORY, FIRST, FITS = 64, 32, 32  # batches of paths for the critic, those of the original network, steps per batch
Reward = Callable[[Tensor], Tensor]


def ink(x: Tensor) -> Tensor:
    """The mean grey level, in units of its range."""
    return 0.5 * x.flatten(1).mean(1) + 0.5


def loops(x: Tensor) -> Tensor:
    """The number of closed loops: of regions of background that do not touch the border."""
    import numpy as np
    from scipy import ndimage

    background = (x[:, 0] <= 0).cpu().numpy()
    within = np.zeros((3, 3, 3))  # neighbours in the same image
    within[1] = ndimage.generate_binary_structure(2, 1)
    labels, count = ndimage.label(background, structure=within)
    image = np.zeros(count + 1, dtype=int)  # of each region
    image[labels] = np.arange(len(labels))[:, None, None]
    edges = (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1])
    closed = np.setdiff1d(np.arange(1, count + 1), np.concatenate([edge.ravel() for edge in edges]))
    return torch.from_numpy(np.bincount(image[closed], minlength=len(x))).to(x)


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

    optimiser.step(loss)
    return linear.requires_grad_(False)


def all_rewards() -> dict[str, Reward]:
    """The rewards by their names."""
    linear = classifier()
    return {"ink": ink, "loops": loops, "seven": lambda x: linear(x.flatten(1)).log_softmax(1)[:, 7]}


def shipped() -> Any:
    """The network of digits, with its weights in the order in which convolutions on a processor are fastest."""
    found = scoresde.load("digits")
    net: Any = found.net
    net.to(memory_format=torch.channels_last)
    return found


def drawn(model: Any, count: int, seed: int) -> Iterator[paths.Path]:
    """Paths of a network, in batches."""
    for first in range(0, count, 256):
        shape = (min(256, count - first), *SHAPE)
        solution = scoresde.solve(SDE, model, shape=shape, seed=seed + first, path_log_prob=True, **METHOD)
        yield solution.path


def times() -> list[float]:
    """The grid."""
    return [float(t) for t in GRID(SDE, SDE.t_max, SDE.t_min, STEPS)]


def trained() -> list[int]:
    """The steps that are trained."""
    levels = [math.exp(-SDE.node(t).lam) for t in times()[:-1]]
    return [step for step, level in enumerate(levels) if LEVELS[0] < level < LEVELS[1]]


class Expected(nn.Module):
    """The reward that is to be expected from a state and the log of its noise level."""

    def __init__(self, width: int = 256, blocks: int = 3) -> None:
        super().__init__()
        self.level = nn.Sequential(nn.Linear(16, 64), nn.SiLU(), nn.Linear(64, width))
        self.first, self.last = nn.Linear(64, width), nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, 1))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(blocks)
        )

    def forward(self, x: Tensor, log_level: Tensor) -> Tensor:
        """Its estimate, ``(batch,)``."""
        angles = 0.35 * log_level[:, None] * torch.arange(1, 9)
        level = self.level(torch.cat([angles.sin(), angles.cos()], 1))
        h = self.first(x.flatten(1))
        for block in self.blocks:
            h = h + block(h + level)
        out: Tensor = self.last(h)[:, 0]
        return out


class Critic:
    """The reward that is to be expected from a state, by regression on the last paths."""

    def __init__(self, seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = Expected()
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        self.averaged = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(0.995))
        self.memory: collections.deque[tuple[Tensor, Tensor]] = collections.deque(maxlen=MEMORY)

    def at(self, x: Tensor, node: Any) -> Tensor:
        """Its estimate for states at one time, ``(batch,)``."""
        out: Tensor = self.averaged(x, torch.full((len(x),), -node.lam))
        return out

    def slope(self, x: Tensor, node: Any) -> Tensor:
        """The gradient of the estimate in the state."""
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.at(x, node).sum(), x)
        return slope

    def learn(self, count: int, source: torch.Generator) -> float:
        """Steps of Adam on states of the last paths; the mean squared error."""
        levels = torch.tensor([-SDE.node(times()[step]).lam for step in [*trained(), trained()[-1] + 1]])
        total = 0.0
        for _ in range(count):
            states, rewards = self.memory[int(torch.randint(len(self.memory), (), generator=source))]
            row = torch.randint(states.shape[1], (512,), generator=source)
            level = torch.randint(len(levels), (512,), generator=source)
            loss = (self.net(states[level, row], levels[level]) - rewards[row]).square().mean()
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            self.averaged.update_parameters(self.net)
            total += float(loss.detach()) / count
        return total

    def remember(self, path: paths.Path, rewards: Tensor) -> None:
        """Keep the states before each step that is trained, and after the last one."""
        last = trained()[-1]
        self.memory.append((torch.stack([path.states[step - 1] for step in [*trained(), last + 1]]), rewards.float()))


def transition(x: Tensor, score: Tensor, step: int, grid: Sequence[float] | None = None) -> tuple[Tensor, float]:
    """The mean and the standard deviation of the state after a step, of the training grid if no other is given."""
    here, there = (SDE.node(t) for t in (grid or times())[step : step + 2])
    shrink = -math.expm1(2 * (here.lam - there.lam))
    keep = here.alpha / there.alpha * (there.sigma / here.sigma) ** 2
    data = (x + here.sigma**2 * score) / here.alpha
    return keep * x + there.alpha * shrink * data, there.sigma * math.sqrt(shrink)


def values(
    path: paths.Path,
    rewards: Tensor,
    scores: list[Tensor],
    reward_of: Reward,
    critic: Critic,
    source: torch.Generator,
) -> Tensor:
    """The reward that is to be expected before each step that is trained, and after the last of them.

    It is linear in the reward of the data that the network predicts from the state, in the mean reward of this estimate
    with noise as large as its error, and in the estimate of the critic, fitted to the batch. ``scores`` are what the
    network returned on the way.
    """
    columns = [rewards.mean().expand(len(rewards))]
    for step in [*trained()[1:], trained()[-1] + 1]:
        state, node = path.states[step - 1], SDE.node(float(path.times[step]))
        data = (state + node.sigma**2 * scores[step]) / node.alpha
        error = (path.states[-1] - data).square().mean(0).sqrt()
        around = data.repeat(SMOOTH, 1, 1, 1)
        around += error * torch.randn(around.shape, generator=source)
        smooth = reward_of(around).reshape(SMOOTH, -1).mean(0)
        with torch.no_grad():
            learned = critic.at(state, node)
        known = torch.stack([torch.ones_like(rewards), *(c.to(F64) for c in (reward_of(data), smooth, learned))], 1)
        columns.append(known @ (torch.linalg.pinv(known) @ rewards))
    return torch.stack(columns, 1)


def advantages(expected: Tensor, rewards: Tensor) -> Tensor:
    r"""By how much the reward exceeds what was to be expected before each step that is trained, ``(batch, steps)``:
    :math:`\sum_j \lambda^j (V_{k+j+1} - V_{k+j})`, with the reward as the last value.

    With :math:`\lambda` = 1 it has no bias but for the fit of the values, and more spread; below 1 it is biased where
    the values are wrong.
    """
    gains = torch.cat([expected, rewards[:, None]], 1).diff(dim=1)
    total, columns = gains[:, -1], []
    for step in reversed(range(gains.shape[1] - 1)):
        total = gains[:, step] + LAMBDA * total
        columns.append(total)
    return torch.stack(columns[::-1], 1)


class Known(NamedTuple):
    """What a critic knows of the gain by the noise of a step: the mean of the step, the slope of the critic there per
    standard deviation, and the product of the slope and the noise that was drawn."""

    mean: Tensor
    slope: Tensor
    gain: Tensor

    def moved(self, path: paths.Path, model: Callable[..., Tensor], step: int, rows: Tensor) -> Tensor:
        """The gain of a network whose mean is another one."""
        x = path.states[step - 1]
        mean, std = transition(x, model(x, path.times[step]), step)
        return ((mean - self.mean[rows]) / std * self.slope[rows]).flatten(1).sum(1)


def expected_gains(path: paths.Path, scores: list[Tensor], critic: Critic, unit: float) -> list[Known]:
    """Of each step that is trained, in units of a reward."""
    found = []
    for step in trained():
        mean, std = transition(path.states[step - 1], scores[step], step)
        slope = critic.slope(mean, SDE.node(times()[step + 1])) * (std / unit)
        noise = (path.states[step] - mean) / std
        found.append(Known(mean, slope, (slope * noise).flatten(1).sum(1)))
    return found


def remembered(model: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A network that is called once for each time, on states that do not change."""
    known: dict[float, Tensor] = {}

    def call(x: Tensor, t: Any) -> Tensor:
        key = round(float(torch.as_tensor(t).flatten()[0]), 6)  # float32 or float64
        if key not in known:
            known[key] = model(x, t)
        return known[key]

    return call


def _count(counted: list[int], out: Tensor) -> None:
    counted[0] += len(out)
    if out.requires_grad:
        out.register_hook(lambda gradient: counted.__setitem__(1, counted[1] + len(gradient)))


def fine_tuned(reward_of: Reward, unit: float, turns: int, seed: int = SEED) -> tuple[Any, list[dict[str, float]]]:
    """The fine-tuned score function, and the curves of its training.

    Args:
        reward_of: the reward.
        unit: the reward that offsets one nat of divergence.
        turns: each draws paths and takes `PARTS` steps of Adam, each with other paths; the step size rises in the
            first turns and then falls to 0.
        seed: of the samples.
    """
    base = shipped()
    original = base.score(SDE)
    net = copy.deepcopy(base.net).requires_grad_(True)
    inner = base.config.model(net, base.native or SDE, base.chain, context={"label": 10}).on(SDE)
    steps = trained()
    high, low = (0.5 * (times()[step] + times()[step - 1]) for step in (steps[0], steps[-1] + 1))

    def model(x: Tensor, t: Any) -> Tensor:
        here = low < float(torch.as_tensor(t).flatten()[0]) < high
        out: Tensor = inner(x, t) if here else original(x, t)
        return out

    def some(count: int) -> list[int]:
        return sorted(torch.randperm(len(steps), generator=source)[:count].tolist())

    critic = Critic(seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda turn: min(1, (turn + 1) / WARM) * (1 - turn / turns))
    source = torch.Generator().manual_seed(seed)
    curves = []
    averaged = AveragedModel(net)
    for path in drawn(original, FIRST * BATCH, 10_000 * seed + 5_000):
        critic.remember(path, reward_of(path.states[-1]))
    critic.learn(FITS * FIRST, source)
    counted = [0, 0]  # samples through the networks, forwards and backwards
    for network in (net, base.net):
        network.register_forward_hook(lambda module, given, out: _count(counted, out))
    for turn in range(turns):
        seeds = 10_000 + 1000 * seed + turn
        scores: list[Tensor] = []

        def noted(x: Tensor, t: Any, scores: list[Tensor] = scores) -> Tensor:
            scores.append(model(x, t))
            return scores[-1]

        solution = scoresde.solve(SDE, noted, shape=(BATCH, *SHAPE), seed=seeds, path_log_prob=True, **METHOD)
        whole, reward = solution.path, reward_of(solution.x).to(F64)
        critic.remember(whole, reward)
        row = {"reward": float(reward.mean()), "kl": 0.0, "clipped": 0.0}
        row["critic"] = critic.learn(FITS, source)
        gains = advantages(values(whole, reward, scores, reward_of, critic, source), reward) / unit
        known = expected_gains(whole, scores, critic, unit)
        rest = REST * (gains - torch.stack([each.gain for each in known], 1))
        for rows in torch.arange(BATCH).chunk(PARTS):
            path, chosen, once = whole[rows], some(REPLAYED), remembered(model)
            options: dict[str, Any] = {"steps": [steps[i] for i in chosen], "checkpoint": False}
            ratio = paths.log_ratio(path, once, per_step=True, **options).exp()
            clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
            gain = torch.minimum(ratio * rest[rows][:, chosen], clipped * rest[rows][:, chosen])
            gain = gain + torch.stack([known[i].moved(path, once, steps[i], rows) for i in chosen], 1)
            divergence = paths.kl(path, once, original, **options)
            loss = len(steps) / REPLAYED * (divergence - gain.sum(1)).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimiser.step()
            row["kl"] += len(steps) / REPLAYED * float(divergence.detach().mean()) / PARTS
            row["clipped"] += float((clipped != ratio).double().mean()) / PARTS
        rate.step()
        if 3 * (turn + 1) > 2 * turns:
            averaged.update_parameters(net)
        row |= {"evaluations": counted[0] / BATCH, "backward": counted[1] / BATCH}  # per path so far
        curves.append(row)
        if turn % 10 == 0:
            print(turn, {key: round(value, 4) for key, value in row.items()}, flush=True)
    net.load_state_dict(averaged.module.state_dict())
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


def squared_means(rewards: Tensor, noise: Tensor) -> Tensor:
    r"""Estimates of :math:`|E(r z)|^2` of each state, from pairs of different continuations, without bias.

    With every reward less the mean of the m - 1 others, a pair has this mean times :math:`1 + (m-1)^{-2}`, since each
    of these means has the reward of the other one of the pair; it is divided by that factor.

    Args:
        rewards: ``(states, continuations)``.
        noise: of the step, ``(states, continuations, size)``.
    """
    m = rewards.shape[1]
    off = (rewards - rewards.mean(1, keepdim=True))[..., None] * m / (m - 1)
    pairs = (off * noise).sum(1).square().sum(1) - (off * noise).square().sum((1, 2))
    return pairs / (m * (m - 1)) / (1 + 1 / (m - 1) ** 2)


def to_first_order(rewards: dict[str, Reward], grid: Tensor, spread: dict[str, float]) -> dict[str, dict[str, Any]]:
    """The share of the gain within reach, its standard error, and the contribution of each step to its square.

    Args:
        rewards: by their names.
        grid: of the steps.
        spread: the variances of the rewards.
    """
    model = shipped().score(SDE)

    def states(start: Tensor, first: int, seed: int) -> list[Tensor]:
        found = []
        for rows in torch.arange(len(start)).split(256):
            options: dict[str, Any] = {"grid": grid[first:], "seed": seed + int(rows[0]), "path_log_prob": True}
            path = scoresde.solve(SDE, model, start[rows], method="ancestral", **options).path
            found.append(torch.stack([path.start, *path.states]))
        return list(torch.cat(found, 1))

    begin = torch.randn(STATES, *SHAPE, generator=torch.Generator().manual_seed(3))
    every = states(begin, 0, 4_000_000)
    found: dict[str, dict[str, Tensor]] = {name: {} for name in rewards}
    for step in range(len(grid) - 1):
        level = math.exp(-SDE.node(float(grid[step])).lam)
        if not LOOKED_AT[0] < level < LOOKED_AT[1]:
            continue
        after = states(every[step].repeat_interleave(CONTINUATIONS, 0), step, 5_000_000 + 100_000 * step)
        with torch.no_grad():
            mean, std = transition(every[step], model(every[step], SDE.node(float(grid[step])).t), step, grid.tolist())
        z = ((after[1] - mean.repeat_interleave(CONTINUATIONS, 0)) / std).reshape(STATES, CONTINUATIONS, -1).to(F64)
        for name, reward_of in rewards.items():
            reward = reward_of(after[-1]).to(F64).reshape(STATES, CONTINUATIONS)
            found[name][f"{level:.3g}"] = squared_means(reward, z) / spread[name]
    shares: dict[str, dict[str, Any]] = {}
    for name, steps in found.items():
        squares = torch.stack([*steps.values()]).sum(0)
        share = math.sqrt(float(squares.mean()))
        error = float(squares.std()) / math.sqrt(STATES) / (2 * share)
        shares[name] = {"share": share, "standard error": error} | {k: float(v.mean()) for k, v in steps.items()}
    return shares


def first_order(rewards: dict[str, Reward]) -> dict[str, Any]:
    """`to_first_order` on the training grid."""
    model = shipped().score(SDE)
    ends = torch.cat([path.states[-1] for path in drawn(model, BASE // 4, 1_000_000)])
    spread = {name: float(reward_of(ends).to(F64).var()) for name, reward_of in rewards.items()}
    return to_first_order(rewards, torch.tensor(times(), dtype=F64), spread)


def measured(reward_of: Reward, turns: int) -> dict[str, Any]:
    """A reward."""
    original = shipped().score(SDE)
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
        "training samples": BATCH * (FIRST + turns),
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
    for step in range(len(times) - 1):
        factor, std = transition(torch.ones((), dtype=F64), -a, step, times.tolist())
        variance = factor**2 * variance + std**2
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
    """Evaluations per path of training, how many of them are followed by a backward pass, in its first turn, and how
    often the reward is evaluated, on samples and on data estimates with noise."""
    _, (row,) = fine_tuned(ink, 0.015, 1)
    rewards = 1 + (1 + SMOOTH) * len(trained())
    costs = {"paths of the original network": FIRST * BATCH, "rewards": rewards}
    return costs | {key: row[key] for key in ("evaluations", "backward")}


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
    parser.add_argument("--check", action="store_true", help="one dimension and a few iterations; nothing is written")
    parser.add_argument("--only", nargs="*", help="'first order' or rewards; the others stay as they are")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results: dict[str, Any] = {"digits": {}, "one dimension": one_dimension(), "training": training_cost()}
    print(results["one dimension"])
    if options.check:
        _, curves = fine_tuned(ink, 0.03, 3)
        print(curves)
    rewards = all_rewards()
    if missing := set(options.only or ()) - {FIRST_ORDER, *rewards}:
        parser.error(f"there is no {' or '.join(sorted(missing))}.")
    for name in [] if options.check else options.only or [FIRST_ORDER, *rewards]:
        print(name, flush=True)
        found = first_order(rewards) if name == FIRST_ORDER else measured(rewards[name], TURNS[name])
        print({key: value for key, value in found.items() if key != "curves"}, flush=True)
        if options.only and (RESULTS / "reinforcement.json").exists():  # others may have been added meanwhile
            results = load("reinforcement")["results"] | {key: results[key] for key in ("one dimension", "training")}
            rows = results["digits"].items()  # without those of other settings
            results["digits"] = {key: row for key, row in rows if row["evaluations per sample"]["fine-tuned"] == STEPS}
        if name == FIRST_ORDER:
            results[FIRST_ORDER] = found
        else:
            results["digits"][name] = found
        write("reinforcement", results, "python -m benchmarks reinforcement")
    if missed := check(results):
        sys.exit("\n".join(missed))
