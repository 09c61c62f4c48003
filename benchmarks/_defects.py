"""Planted defects: mistakes of a kind that people make, each of which a test must notice."""

from __future__ import annotations

from typing import NamedTuple


class Defect(NamedTuple):
    """What goes wrong, in which file of the package, and the text before and after."""

    name: str
    path: str
    old: str
    new: str


S = "solvers/"
B = "likelihood/bounds/"
DEFECTS = (
    # noise of the wrong size
    Defect(
        "noise x 1.02: the batch's source",
        "noise/sources.py",
        ".normal_(generator=generator)",
        ".normal_(generator=generator) * 1.02",
    ),
    Defect(
        "noise x 1.02: each sample's source",
        "noise/sources.py",
        "return self._block[:, self._used - 1].to(like)",
        "return self._block[:, self._used - 1].to(like) * 1.02",
    ),
    Defect(
        "noise x 1.02: Brownian bridge", "noise/brownian.py", "alpha=math.sqrt(share", "alpha=1.02 * math.sqrt(share"
    ),
    Defect(
        "noise x 1.02: bridge with areas",
        "noise/brownian.py",
        "deviation * z[..., 0])",
        "1.02 * deviation * z[..., 0])",
    ),
    Defect("the variance of a bridge's area", "noise/brownian.py", "(12 * left)", "(6 * left)"),
    Defect("noise x 1.02: Euler-Maruyama", S + "euler_maruyama.py", "(h, spread)", "(h, 1.02 * spread)"),
    Defect(
        "noise x 1.02: ancestral",
        S + "ancestral.py",
        "(std, (yield process.increment(start.t, stop.t, x)))",
        "(1.02 * std, (yield process.increment(start.t, stop.t, x)))",
    ),
    Defect(
        "noise x 1.02: exponential, data",
        S + "families/exponential.py",
        "spread = stop.sigma * (-expm1",
        "spread = 1.02 * stop.sigma * (-expm1",
    ),
    Defect(
        "noise x 1.02: exponential, noise",
        S + "families/exponential.py",
        "spread = eta * stop.sigma",
        "spread = 1.02 * eta * stop.sigma",
    ),
    Defect("noise x 1.02: churn", S + "edm.py", "added = hat.sigma", "added = 1.02 * hat.sigma"),
    Defect(
        "noise x 1.02: forward transition",
        S + "families/transition.py",
        "spread = stop.sigma",
        "spread = 1.02 * stop.sigma",
    ),
    Defect(
        "noise x 1.02: Langevin",
        "correctors/langevin.py",
        "(epsilon, (2 * epsilon) ** 0.5)",
        "(epsilon, 1.02 * (2 * epsilon) ** 0.5)",
    ),
    Defect("h for its root: Euler-Maruyama", S + "euler_maruyama.py", "absolute(h) ** 0.5", "absolute(h)"),
    Defect("h for its root: stochastic Heun", S + "heun_sde.py", "absolute(h) ** 0.5", "absolute(h)"),
    Defect("h for its root: reverse diffusion", S + "reverse_diffusion.py", "b2**0.5", "b2"),
    Defect(
        "no noise in the last cell: SEEDS",
        S + "seeds.py",
        "_noises(nodes[: i + 2])",
        "[*_noises(nodes[: i + 2])[:-1], 0.0]",
    ),
    Defect(
        "the large variance for the small one",
        S + "ancestral.py",
        '"small": lambda start, stop, estimate: stop.sigma',
        '"small": lambda start, stop, estimate: start.sigma',
    ),
    # the wrong time
    Defect(
        "beta at the other end: Euler-Maruyama",
        S + "euler_maruyama.py",
        "process.diffusion(x, start)",
        "process.diffusion(x, stop)",
    ),
    Defect("the score at the next time: DDIM", S + "ddim.py", "linear_estimate(x, start)", "linear_estimate(x, stop)"),
    Defect(
        "the score at the next time: multistep",
        S + "families/multistep.py",
        "estimate = yield process.linear_estimate(x, start)",
        "estimate = yield process.linear_estimate(x, stop)",
    ),
    Defect(
        "swapped nodes: exponential, data",
        S + "families/exponential.py",
        "keep = stop.sigma / start.sigma *",
        "keep = start.sigma / stop.sigma *",
    ),
    Defect(
        "swapped nodes: transition",
        S + "families/transition.py",
        "combine(stop.alpha / start.alpha, x",
        "combine(start.alpha / stop.alpha, x",
    ),
    Defect(
        "swapped ends of the interval",
        "processes/nodes.py",
        "self._times, self._table = times, self.sde.nodes(times)",
        "self._times, self._table = times, self.sde.nodes(times.flip(0))",
    ),
    Defect(
        "the last step left out",
        "controllers/fixed.py",
        "if following < len(nodes) else None",
        "if following < len(nodes) - 1 else None",
    ),
    Defect(
        "h for its root: Brownian path",
        "noise/brownian.py",
        "div_(math.sqrt(whole))",
        "div_(whole)",
    ),
    Defect("the stage at the wrong node", "processes/nodes.py", "u + c * (v - u)", "u + c * c * (v - u)"),
    # factors of the equations
    Defect(
        "no 1/2 in the probability flow: general",
        "processes/general.py",
        "0.5 * (1 + self.eta**2)",
        "(1 + self.eta**2)",
    ),
    Defect(
        "no 1/2 in the probability flow: affine",
        "processes/base.py",
        "rate = node.dsigma +",
        "rate = 2 * node.dsigma +",
    ),
    Defect("no 1/2 in the reverse drift", "processes/base.py", "0.5 * self.eta**2", "self.eta**2"),
    Defect(
        "alpha and sigma swapped: DDIM",
        S + "ddim.py",
        "mix(stop.alpha, stop.sigma)",
        "mix(stop.sigma, stop.alpha)",
    ),
    Defect(
        "alpha and sigma swapped: v-prediction",
        "scores/predictions.py",
        "return n.alpha / norm, -n.sigma / norm",
        "return n.sigma / norm, -n.alpha / norm",
    ),
    Defect(
        "the other sign of a noise prediction",
        "scores/predictions.py",
        "divide(1.0, n.alpha), divide(-n.sigma, n.alpha)",
        "divide(1.0, n.alpha), divide(n.sigma, n.alpha)",
    ),
    Defect("log-SNR for its half: EDM's time", "scores/model.py", "-0.25 * n.lam", "-0.5 * n.lam"),
    Defect(
        "g^2 without alpha's part: Gaussian",
        "sdes/gaussian.py",
        "self._sigma_rate(t) - sigma * self._rates(t)[0]",
        "self._sigma_rate(t)",
    ),
    Defect(
        "no 1/2 in beta's integral", "sdes/vp.py", "return t * (self.beta_min + 0.5 *", "return t * (self.beta_min +"
    ),
    Defect(
        "sub-VP's sigma squared: a root too many",
        "sdes/vp.py",
        "log_sigma = torch.log(-torch.expm1(-b))",
        "log_sigma = 0.5 * torch.log(-torch.expm1(-b))",
    ),
    Defect(
        "standard deviation for variance: prior",
        "sdes/priors.py",
        "return self._mean(z) + self.std * z",
        "return self._mean(z) + self.std**2 * z",
    ),
    Defect(
        "the prior without its mean", "sdes/priors.py", "return self._mean(z) + self.std * z", "return self.std * z"
    ),
    Defect("Langevin: noise of half the variance", "correctors/langevin.py", "(2 * epsilon) ** 0.5", "epsilon**0.5"),
    Defect("underdamped: whole steps for halves", "correctors/underdamped.py", "half = 0.5 *", "half = 1.0 *"),
    Defect(
        "MALA accepts everything", "correctors/mala.py", "uniform.log() < log_ratio", "uniform.log() < log_ratio + 1e9"
    ),
    # coefficients of methods
    Defect(
        "phi: 1/k! left out",
        "_phi.py",
        "(expm1(z) if k == 0 else values[-1] - 1 / math.factorial(k))",
        "(expm1(z) if k == 0 else values[-1] - 1)",
    ),
    Defect("the factorial of the moments", S + "families/exponential.py", "math.factorial(k) * value", "value"),
    Defect(
        "DPM-Solver-3M: half the second derivative", S + "dpm_multistep.py", 'if self.variant == "published" and', "if"
    ),
    Defect(
        "UniPC: corrected at the wrong place",
        S + "families/multistep.py",
        "(stop, *near.nodes)",
        "(start, *near.nodes)",
    ),
    Defect(
        "UniPC: the estimate is not kept",
        S + "families/multistep.py",
        "StepResult(better, history.push(stop, value, self.memory))",
        "StepResult(better, history.push(stop, 1.001 * value, self.memory))",
    ),
    Defect("DEIS: no 1/2", S + "deis.py", "0.5 * h * w", "h * w"),
    Defect("SRA1: 1/3 and 2/3 swapped", S + "sra.py", "(h / 3, 2 * h / 3,", "(2 * h / 3, h / 3,"),
    Defect("ShARK: the mean for the area", S + "sra.py", "(-0.5, w)", "(0.0, w)"),
    Defect("streams: nine rounds", "noise/philox.py", "_ROUNDS = 10", "_ROUNDS = 9"),
    Defect(
        "streams: draws at once overlap",
        "noise/sources.py",
        "self._next = self._next + draws.shape[-1]",
        "self._next = self._next + 1",
    ),
    Defect("streams: sine and cosine of another angle", "noise/philox.py", "v.mul_(2 * math.pi)", "v.mul_(math.pi)"),
    Defect(
        "sets: a shard counts by its length",
        "files/shards.py",
        "or (content and file_digest(path) != digest)",
        "",
    ),
    Defect(
        "sets: batches begin where the set begins",
        "files/shards.py",
        "range(start + (span.start - start) // size * size, span.stop, size)",
        "range(span.start, span.stop, size)",
    ),
    Defect(
        "sets: halved batches are forgotten",
        "files/shards.py",
        "return int(size) if known",
        "return self.plan.batch_size if known",
    ),
    Defect("the variance of a mean of the path", "noise/sources.py", "12**-0.5", "6**-0.5"),
    Defect("RK4: a weight", S + "rk4.py", "b=(1 / 6, 1 / 3, 1 / 3, 1 / 6)", "b=(1 / 6, 1 / 4, 5 / 12, 1 / 6)"),
    Defect(
        "the start-up a degree lower",
        S + "families/multistep.py",
        "(self.ode_order or 1) - 1 if",
        "(self.ode_order or 1) - 2 if",
    ),
    # batches, seeds, labels, limits
    Defect(
        "one sample takes another's seed",
        "noise/sources.py",
        'check_seed(f"seeds[{i}]", seed)',
        'check_seed(f"seeds[{i}]", values[0])',
    ),
    Defect(
        "the samples that stay change places",
        "noise/sources.py",
        "part._rows = rows if",
        "part._rows = rows.flip(0) if",
    ),
    Defect(
        "the error norm of the batch",
        "_tensors.py",
        "dim=start, dtype=kind) / math.sqrt(max(1, flat.shape[start]))",
        "dtype=torch.float64).expand(flat.shape[:start]) / math.sqrt(max(1, flat.numel()))",
    ),
    Defect(
        "a rejected step is taken",
        "controllers/adaptive.py",
        "accept = finite & (error <= 1)",
        "accept = finite & (error <= 100)",
    ),
    Defect(
        "the label of the next level",
        "chains/curve.py",
        "return labels[torch.bucketize(-log_snr.detach(), edges)]",
        "return labels[torch.bucketize(-log_snr.detach(), edges).clamp_min(1) - 1]",
    ),
    Defect(
        "respacing renumbers the labels",
        "chains/base.py",
        "self.times[places], self.labels[places]",
        "self.times[places], torch.arange(len(places))",
    ),
    Defect(
        "the clipped estimate without its noise",
        "scores/base.py",
        "noise=given.noise + (given.data - data) * (expand(node.alpha, x) / expand(node.sigma, x))",
        "noise=given.noise",
    ),
    Defect(
        "losses: the error of the data where that of the noise is known",
        "losses/core.py",
        "clean = sigma <= alpha",
        "clean = sigma > alpha",
    ),
    Defect(
        "losses: v with a plus",
        "losses/core.py",
        "(n.alpha, -n.sigma)",
        "(n.alpha, n.sigma)",
    ),
    Defect(
        "losses: EDM's target for another deviation",
        "losses/core.py",
        "/ (sigma_data * (n.alpha**2 + n.sigma**2))",
        "/ (n.alpha**2 + n.sigma**2)",
    ),
    Defect(
        "losses: no importance weights",
        "losses/core.py",
        "return scaled(value, draw.weight) if importance else value",
        "return value",
    ),
    Defect(
        "losses: the ends are divided by 0",
        "losses/core.py",
        "node = node._replace(alpha=node.alpha.clamp_min(tiny), sigma=node.sigma.clamp_min(tiny))",
        "node = node._replace(alpha=node.alpha, sigma=node.sigma)",
    ),
    Defect(
        "losses: min-SNR of the data's error",
        "losses/weights.py",
        "return (self.gamma * torch.exp(-2 * node.lam)).clamp_max(1.0)",
        "return torch.exp(2 * node.lam).clamp_max(self.gamma)",
    ),
    Defect(
        "losses: g^2 without sigma^2",
        "losses/weights.py",
        "return node.g2 / (node.sigma * node.sigma)",
        "return node.g2",
    ),
    Defect(
        "losses: sliced score matching without its half",
        "losses/score_matching.py",
        "value = value + 0.5 * dot(score, score)\n    else",
        "value = value + dot(score, score)\n    else",
    ),
    Defect(
        "losses: denoising score matching without its half",
        "losses/score_matching.py",
        "    return 0.5 * denoising(",
        "    return 1.0 * denoising(",
    ),
    Defect(
        "losses: the transition's score before the step",
        "losses/score_matching.py",
        "off = spread * _called(score_fn, state, times + step, context) + noise",
        "off = spread * _called(score_fn, x, times + step, context) + noise",
    ),
    Defect(
        "losses: a log-normal distribution that is not cut off",
        "losses/times.py",
        "return self.mean + self.std * z, _bell(z) / (self.std * mass)",
        "return self.mean + self.std * z, _bell(z) / self.std",
    ),
    Defect(
        "losses: the cell of a mesh is uniform",
        "losses/times.py",
        "step = torch.minimum(2 * left / (w[k] + root), h[k])",
        "step = torch.minimum(left / w[k], h[k])",
    ),
    Defect(
        "losses: a share of numbers is not even",
        "losses/times.py",
        "device=device, dtype=torch.float64) / max(1, n)) % 1.0",
        "device=device, dtype=torch.float64) / max(1, n + 1)) % 1.0",
    ),
    Defect(
        "losses: the second moment of the first losses",
        "losses/indices.py",
        "self._squares[i, self._counts[i] % self.history] = square",
        "self._squares[i, self._counts[i].clamp_max(self.history - 1)] = square",
    ),
    Defect(
        "losses: the moment without a root",
        "losses/indices.py",
        "root = self._squares.mean(1).sqrt()",
        "root = self._squares.mean(1)",
    ),
    Defect(
        "losses: the mean of a reverse step from the next level",
        "losses/chains.py",
        "of_data = before.sqrt() * betas",
        "of_data = chain.alphas_bar.sqrt() * betas",
    ),
    Defect(
        "losses: the hybrid's bound trains the mean",
        "losses/chains.py",
        "off = off.detach() if freeze_mean else off",
        "off = off",
    ),
    Defect(
        "losses: the hybrid depends on the number of levels",
        "losses/chains.py",
        "bound = share * len(chain) * UNITS",
        "bound = share * 1000 * UNITS",
    ),
    Defect(
        "losses: the learned variance upside down",
        "losses/chains.py",
        "level.log_small + _share(seen) * (level.log_large - level.log_small)",
        "level.log_large + _share(seen) * (level.log_small - level.log_large)",
    ),
    Defect(
        "losses: the bound of T levels without T",
        "losses/chains.py",
        "return scale * (len(chain) * finish(term, draw, node, x0, times) + prior)",
        "return scale * (finish(term, draw, node, x0, times) + prior)",
    ),
    Defect(
        "losses: expm1 with the wrong sign",
        "losses/bounds.py",
        "rate = steps * torch.expm1(2 * (before.lam - node.lam))",
        "rate = -steps * torch.expm1(2 * (node.lam - before.lam))",
    ),
    Defect(
        "losses: the ends of the schedule minimise the variance",
        "losses/bounds.py",
        "gamma, rate = self.low + span * place, span * rate",
        "gamma, rate = self._squared(self.low + span * place), self._squared(span * rate)",
    ),
    Defect(
        "losses: the variance without its factor",
        "losses/bounds.py",
        "g * (2 * self.losses.to(g))",
        "g * self.losses.to(g)",
    ),
    Defect(
        "losses: the reconstruction at the centre",
        "losses/bounds.py",
        "logits = -0.5 * (far / rho + noise[..., None]).square()",
        "logits = -0.5 * (far / rho).square()",
    ),
    Defect(
        "losses: the tails of grey values are cut",
        "losses/gaussian.py",
        "return torch.where(lowest | highest, outer, inner)",
        "return inner",
    ),
    Defect(
        "losses: a divergence the wrong way round",
        "losses/gaussian.py",
        "ratio, inverse = log_v - log_other,",
        "ratio, inverse = log_other - log_v,",
    ),
    # the last step without an evaluation
    Defect("landing: of any size", "controllers/adaptive.py", "_UNSEEN = 0.25", "_UNSEEN = 1e9"),
    Defect(
        "landing: where the slope is not known",
        S + "dpmpp_sde12.py",
        "h > self.control.growth * (1",
        "h < -self.control.growth * (1",
    ),
    Defect("landing: counted for all", "integrate.py", "self._steps + tried", "self._steps + 1"),
    # the adaptive pair of the reverse SDE
    Defect(
        "pair: a martingale that goes on in proportion",
        S + "dpmpp_sde12.py",
        "power = 1 / (1 + min(self.eta, 1.0) ** 2)",
        "power = 1.0",
    ),
    Defect(
        "pair: steps of any length",
        "controllers/adaptive.py",
        "h_next = np.minimum(h_next, control.longest)",
        "h_next = h_next",
    ),
    Defect(
        "pair: the slope of a root at 0",
        S + "dpmpp_sde12.py",
        "end = torch.where(end <= begin, begin + _SLIVER, end)",
        "end = end",
    ),
    Defect(
        "path: the slope of a root at 0",
        "noise/followed.py",
        "torch.where(new, variance, 1.0).sqrt()",
        "variance.sqrt()",
    ),
    # particles, composed posteriors
    Defect(
        "particles: the twist not divided out",
        "solvers/families/particles.py",
        "- log_twist.double() + ratio",
        "+ ratio",
    ),
    Defect("particles: the ratio inverted", "solvers/families/particles.py", "ratio = -(shift", "ratio = (shift"),
    Defect(
        "particles: weights kept after resampling",
        "solvers/families/particles.py",
        "torch.where(drawn[:, None], torch.zeros_like(sets), ",
        "torch.where(drawn[:, None], sets, ",
    ),
    Defect("tall: n for n - 1", "guidance/tall.py", "total = (1 - _count(observed))", "total = (-_count(observed))"),
    Defect("tall: no square", "guidance/tall.py", "cholesky_solve(precision * sigma2", "cholesky_solve(precision"),
    # guidance, inverse problems
    Defect(
        "guidance: the noise left unguided",
        "guidance/combination.py",
        "_plus(noise, e.noise - base.noise, w)",
        "noise",
    ),
    Defect(
        "pigdm: the variance of a state for that of the data",
        "inverse/rules/pigdm.py",
        "return node.sigma * node.sigma * v / (node.alpha * node.alpha * v + node.sigma * node.sigma)",
        "return node.alpha * node.alpha * v + node.sigma * node.sigma",
    ),
    Defect(
        "mmps: the standard deviation for the variance",
        "inverse/rules/mmps.py",
        "variance = measurement.std**2",
        "variance = measurement.std",
    ),
    Defect(
        "ddnm: the adjoint for the pseudo-inverse",
        "inverse/rules/ddnm.py",
        "operator.pseudo_inverse(y - ",
        "operator.adjoint(y - ",
    ),
    # a network that writes every output to the same memory
    Defect(
        "estimates kept without a copy",
        "processes/network.py",
        "copied(out, self.traits.network_parts) if self.copies else out",
        "out",
    ),
    Defect(
        "methods that declare nothing keep nothing",
        S + "base.py",
        "def keeps_estimates(self) -> bool:\n        return True",
        "def keeps_estimates(self) -> bool:\n        return False",
    ),
    Defect(
        "slopes that are estimates taken for new tensors",
        "processes/coordinates.py",
        "is_estimate: bool = True",
        "is_estimate: bool = False",
    ),
    Defect("guidance: answers overwritten", "guidance/together.py", "keep=group is not groups[-1]", "keep=False"),
    Defect(
        "the end of a solve in the network's memory",
        "_combination.py",
        "        out = values[0].clone()\n    for i in range(done",
        "        out = values[0]\n    for i in range(done",
    ),
    Defect(
        "copies for methods that keep nothing",
        "_setup.py",
        "copies = solver.keeps_estimates or given.differentiable",
        "copies = True",
    ),
    # samples of a batch that affect each other
    Defect(
        "adams: a sum in the order that torch chooses",
        S + "adams.py",
        "functools.reduce(torch.add, (part * terms).unbind(1))",
        "(part * terms).sum(1)",
    ),
    Defect(
        "sums over samples as they lie in memory",
        "_tensors.py",
        "return flat if flat.stride(-1) == 1 else flat.contiguous()",
        "return flat",
    ),
    Defect(
        "a single sum split among threads",
        "_tensors.py",
        "reduce(flat, 1) if len(flat) != 1 else",
        "reduce(flat, 1) if True else",
    ),
    # bounds
    Defect("bound: no 1/2 in the integral", B + "variational.py", "return 0.5 * weight", "return weight"),
    Defect(
        "bound: the step's other end",
        B + "levels.py",
        "Node(*(v[index + 1] for v in nodes))",
        "Node(*(v[index] for v in nodes))",
    ),
    Defect("bound: h for expm1 of a step", B + "levels.py", "gaps = torch.expm1(", "gaps = torch.abs("),
    Defect("bound: g for its square", B + "levels.py", "* node.g2 /", "* node.g2.sqrt() /"),
    Defect(
        "bound: probabilities not divided by",
        B + "levels.py",
        "edges[-1] / shares[index]",
        "edges[-1].expand(len(index))",
    ),
    Defect("bound: entropy of the deviation", B + "terms.py", "+ math.log(node.sigma)", "+ 0.5 * math.log(node.sigma)"),
    Defect(
        "bound: a decoder as narrow as sigma",
        B + "variational.py",
        "z, node.sigma / node.alpha)",
        "z, node.sigma**2 / node.alpha)",
    ),
    Defect("bound: the outermost cell closed", "losses/gaussian.py", "lowest | highest", "lowest"),
    Defect("bound: grey values at the edge of their cells", B + "terms.py", "+ 0.5)", "+ 0.0)"),
    Defect(
        "bound: the prior without the data",
        B + "terms.py",
        "x.to(torch.float64), node",
        "0 * x.to(torch.float64), node",
    ),
    Defect("bound: variances the other way round", B + "chain.py", "return 2 * (a - b)", "return 2 * (b - a)"),
    Defect("bound: no variance in the weight of a step", B + "chain.py", "missed) * torch.exp(ratio)", "missed)"),
    Defect(
        "bound: the large variance of the last step",
        B + "chain.py",
        "amplitude(first, first._replace(sigma=before)",
        "amplitude(first, first",
    ),
    Defect(
        "bound: what is known of random steps, twice",
        B + "chain.py",
        "(value - known.to(x.device)[index]) * inverse",
        "value * inverse",
    ),
    Defect("bound: strata of the wrong weight", B + "levels.py", "whole / count**2", "whole / count"),
    Defect(
        "bound: levels and noise of one seed",
        B + "terms.py",
        "source = BatchNoise(generator)",
        'source = BatchNoise.seeded(check_seed("seed", seed or 0), device)',
    ),
    Defect("bound: the network's variance unchecked", B + "terms.py", "(missed, *network.last)", "(missed,)"),
    Defect(
        "another process without the scale of the state",
        "scores/model.py",
        "return native.sigma / node.sigma if lam < 0 else native.alpha / node.alpha, native",
        "return 1.0, native",
    ),
    Defect(
        "another process at its own time",
        "scores/model.py",
        "self.native.nodes(self.native.time(2 * torch.tensor(lams",
        "self.native.nodes(self.sde.time(2 * torch.tensor(lams",
    ),
    Defect(
        "memory that somebody holds",
        "_plan.py",
        "    own -= {number for i in every if not isinstance(i, Sum) for number in i.read}\n",
        "",
    ),
    Defect("a plan for another stochasticity", "_plan.py", "(options, process.eta, ", "(options, "),
    Defect("a plan for another prediction", "_plan.py", "network.copies, kind, constants", "network.copies, constants"),
    Defect(
        "a plan for other numbers of a process",
        "_memo.py",
        "else (type(value), tuple(named.items()))",
        "else type(value)",
    ),
    Defect(
        "a plan writes over what is still needed",
        "_plan.py",
        "instruction.over = first in own and first in instruction.dead and first not in others",
        "instruction.over = first in own and first not in others",
    ),
    Defect(
        "a plan writes over what the same sum reads again",
        "_plan.py",
        "first in instruction.dead and first not in others",
        "first in instruction.dead",
    ),
    Defect(
        "a plan forgets what the network returned",
        "_plan.py",
        "            out += waiting.values()\n",
        "",
    ),
    Defect("a device: the step of the read", "integrate.py", "len(bad) - since, 0), wrong", "1, 0), wrong"),
    Defect("a device: evaluations after the failure", "integrate.py", "self.nfe[rows] -= sum(", "0 * sum("),
    Defect(
        "a network that writes to its input: on a fixed grid",
        "processes/network.py",
        "(x._version != version or time._version",
        "(False or time._version",
    ),
    Defect(
        "a network that writes to its time spoils it",
        "processes/network.py",
        "direct.rows.update(self.score_fn",
        "dict().update(self.score_fn",
    ),
    Defect("a window of the wrong nodes", S + "families/multistep.py", "known[0] == nodes", "known[0]"),
    Defect(
        "a resumed run without the moments of Adam",
        "training/trainer.py",
        'self.optimizer.load_state_dict({"state": state,',
        'self.optimizer.load_state_dict({"state": {},',
    ),
    Defect(
        "dropout that is not seeded",
        "training/trainer.py",
        "torch.manual_seed(piece.dropout)",
        "pass",
    ),
    Defect(
        "the same noise of dequantisation at every step",
        "training/data.py",
        "generator_of(self.seed, DATA, step, self.rank)",
        "generator_of(self.seed, DATA, 0, self.rank)",
    ),
    Defect("the sum of the ranks' gradients", "training/parallel.py", "        flat /= world\n", ""),
    # a solve in the caller's hands
    Defect(
        "stepper: a step made again draws again",
        "stepping.py",
        "if self._place == len(self._drawn):",
        "if True:",
    ),
    Defect(
        "stepper: evaluations of a step made again count twice",
        "stepping.py",
        "self._place, caller.read, self._network.calls = 0, 0, self._calls",
        "self._place, caller.read, self._calls = 0, 0, self._network.calls",
    ),
    Defect(
        "stepper: an output is not copied",
        "stepping.py",
        "output.detach().clone() if self._planless",
        "output.detach() if self._planless",
    ),
    Defect("stepper: written inputs pass", "stepping.py", "version_of(question.x) != self._version", "False"),
    Defect(
        "stepper: a set state keeps the parts of a step",
        "stepping.py",
        "self._leave()\n        with _quiet():\n            self._keep(value",
        "self._question = None\n        with _quiet():\n            self._keep(value",
    ),
    Defect(
        "stepper: the derivative of the state before",
        "integrate.py",
        "self.replaced = self.begun and self.solver.adaptive",
        "self.replaced = False",
    ),
    Defect("stepper: finished samples leave the batch", "stepping.py", "compact=False", "compact=True"),
    Defect("snapshot: tensors are shared", "_snapshot.py", "copy = value.detach().clone()", "copy = value.detach()"),
    Defect("snapshot: generators are not set back", "_snapshot.py", "    into.set_state(state.cpu())\n", ""),
    Defect(
        "plan: a step that goes on begins anew",
        "_plan.py",
        "instructions[self.at :] if self.at else instructions",
        "instructions",
    ),
    Defect(
        "data estimate of the state after the step",
        "processes/network.py",
        "direct.read(kept, out, node)",
        "direct.read(2 * kept, out, node)",
    ),
    Defect(
        "k-samplers: the level of the evaluation for that of the step",
        "interop/k_samplers.py",
        '"sigma": sigma.to(x)',
        '"sigma": at[0]',
    ),
    Defect(
        "k-samplers: noise between the wrong levels",
        "interop/k_samplers.py",
        "for level in (start, stop)",
        "for level in (stop, start)",
    ),
    Defect(
        "course: the last leg begins where the first did",
        "interop/course.py",
        "self._begin(self.leg, self.now.x)",
        "self._begin(self.leg, 0 * self.now.x)",
    ),
    Defect("presets: averages with the memory of long runs", "presets/scaling.py", "(1 - ema) / EPOCHS)", "(1 - ema))"),
    Defect("presets: a learning rate of wide networks", "presets/scaling.py", "WIDTH * learning_rate", "learning_rate"),
    Defect(
        "presets: decoders of the cells' edges",
        "presets/ddpm.py",
        "(low + 0.5 * width, low + (levels - 0.5) * width)",
        "(low, low + levels * width)",
    ),
    Defect(
        "presets: bounds with the small variance", "presets/bounds.py", "variance=self.variance", 'variance="small"'
    ),
    Defect(
        "presets: the data estimate as the noise",
        "presets/ddpm.py",
        '0.02),\n    prediction="noise",',
        '0.02),\n    prediction="data",',
    ),
    Defect("presets: grey levels with noise", "training/preset.py", "        preset.dequantise,\n", ""),
    Defect(
        "presets: networks that see labels",
        "training/preset.py",
        "source = preset.source(as_source(source))",
        "source = as_source(source)",
    ),
    Defect("presets: a model without its sampler", "training/preset.py", "        sampler=preset.sampler,\n", ""),
    Defect(
        "samplers: another spacing",
        "zoo/sampler.py",
        "chain.grid(self.levels, self.spacing)",
        "chain.grid(self.levels)",
    ),
    Defect(
        "samplers: the end of the process",
        "zoo/sampler.py",
        '"grid": self.grid, "t_end": self.t_end}',
        '"grid": self.grid}',
    ),
    Defect(
        "writes: not seen by a model",
        "scores/model.py",
        '        check_unwritten("The network", before, x, extra)\n',
        "",
    ),
    Defect(
        "writes: not seen by a wrapper",
        "scores/wrapper.py",
        '            check_unwritten("The score function", before, x, context)\n',
        "",
    ),
    Defect("writes: a time that is the node's", "scores/model.py", "time_input(n.t.clone())", "time_input(n.t)"),
    Defect("losses: contexts of any length", "losses/checks.py", "leaf.ndim and len(leaf) != batch", "False"),
    Defect(
        "general: a diffusion that is overwritten",
        "processes/general.py",
        "return g.clone() if isinstance(g, Tensor) else g",
        "return g",
    ),
    Defect("noise: pairs for a draw", "noise/brownian.py", "(draw[..., 0] if self.areas else draw)", "draw"),
    Defect(
        "density: evaluations of samples that are lost",
        "likelihood/flow.py",
        "nfe=torch.where(finite, solution.nfe, 0)",
        "nfe=solution.nfe",
    ),
    Defect("losses: other layouts", "losses/core.py", '"sum": row_sums', '"sum": lambda v: v.flatten(1).sum(1)'),
    Defect("samplers: the noise left in", "cli/_options.py", "told, sampler.denoise, sampler", "told, False, sampler"),
    # nests of tensors in a context
    Defect(
        "context: not cut with the batch", "_context.py", "    return mapped(some, context)", "    return dict(context)"
    ),
    Defect(
        "context: one row for all stays one", "_context.py", "return leaf.expand(batch, *leaf.shape[1:])", "return leaf"
    ),
    Defect("context: a number of torch", "_context.py", "inside or leaf.ndim > 0", "True"),
    Defect("context: rows of another batch", "_context.py", "if tables and not path:", "if True:"),
    Defect("context: lists of numbers", "_context.py", "if not (value is None or", "if False and (value is None or"),
    Defect("context: tables are rows", "_context.py", "if tables and not path:", "if False:"),
    Defect("context: rows of one batch for any", "_context.py", "v.ndim and v.size(0) != 1 for", "False for"),
    Defect("context: one row for the rows of one batch", "_context.py", "v.ndim and v.size(0) != 1 for", "v.ndim for"),
    Defect(
        "context: writes in a nest",
        "_context.py",
        "            found += [leaf._version for leaf in _tensors_in(value) if not leaf.is_inference()]\n",
        "            continue\n",
    ),
    Defect(
        "context: writes in a nest, on a grid",
        "processes/network.py",
        "in tensors(self._direct.extra.values()) if not",
        "in self._direct.extra.values() if isinstance(v, Tensor) and not",
    ),
    Defect("context: nests of other forms in one call", "_context.py", "form_ == other and", ""),
    Defect("context: dtypes in one call", "_context.py", "a.dtype == b.dtype and ", ""),
    Defect("context: one batch for all", "_context.py", "torch.cat(values) if", "values[0] if"),
    Defect(
        "tall: bound context of one batch",
        "guidance/tall.py",
        "every = per_row(bound, x, tables=True) | context",
        "every = bound | context",
    ),
    Defect("context: tensors that autograd may not keep", "guidance/likelihood.py", "mapped(usable, given)", "given"),
    Defect("context: of a classifier likewise", "guidance/classifier.py", "mapped(usable, given)", "given"),
    Defect(
        "context: other ones within a set of particles", "solvers/families/particles.py", "named(context).items()", "()"
    ),
    Defect("half precision: not explained", "errors.py", "type(error) is RuntimeError and", "False and"),
    Defect("half precision: every error", "errors.py", "bool(_DTYPES.search(str(error)))", "True"),
    Defect(
        "sets: rows beyond the table",
        "generation/computing.py",
        "table[self.indices % len(table)]",
        "table[:len(self.indices)]",
    ),
    Defect(
        "trust: the rank of n draws",
        "trust/conformal.py",
        "math.ceil((draws + 1) * confidence",
        "math.ceil(draws * confidence",
    ),
    Defect(
        "trust: the distances from the smallest on",
        "trust/law.py",
        "enumerate(reversed(ordered))",
        "enumerate(ordered)",
    ),
    Defect(
        "trust: an uncertain reference",
        "trust/running.py",
        "self.norm.between(solution.x, tight) + gap",
        "self.norm.between(solution.x, tight)",
    ),
    Defect(
        "trust: draws that failed", "trust/running.py", "values.nan_to_num(nan=math.inf)", "values.nan_to_num(nan=0.0)"
    ),
    Defect(
        "trust: samples that failed",
        "trust/certificate.py",
        "torch.where(failed, torch.full_like(bound, math.inf), bound)",
        "bound.nan_to_num()",
    ),
    Defect("trust: samples of the pilot", "trust/certificate.py", "FRESH = 2", "FRESH = 1"),
    Defect(
        "trust: samples that stand still",
        "trust/indicators.py",
        "expand((t != self._t).to(x), x).bool()",
        "expand((t == t).to(x), x).bool()",
    ),
    Defect(
        "trust: another network",
        "trust/certificate.py",
        "self.identity.check(Identity.of(task, context,",
        "(Identity.of(task, context,",
    ),
    Defect(
        "trust: methods without a path",
        "trust/reference.py",
        "if task.stochastic and task.solver.strong_order is None:",
        "if False:",
    ),
    Defect("trust: classes of one kind", "trust/certificate.py", "strict=True) if of == label]", "strict=True)]"),
    Defect(
        "trust: a coarse reference",
        "trust/reference.py",
        "            if enough(solved(tight), solved(loose)):",
        "            if True:",
    ),
    Defect(
        "trust: half the steps of another solve",
        "trust/coupling.py",
        "count = int((steps * each + extra) / 2 - extra) // each",
        "count = steps - 1",
    ),
    Defect("sets: failures forgotten", "generation/making.py", "self._failures[shard] = record.failures", "pass"),
    Defect(
        "sets: a lease is kept after an error",
        "generation/making.py",
        "                            lease.release()\n                            raise",
        "                            raise",
    ),
    Defect("sets: the next shard after failures", "generation/making.py", "if shard_made[1]:", "if False:"),
    Defect(
        "sets: the team is not told of the end",
        "generation/making.py",
        "self.team.end(self.failures)",
        "self.team.wait()",
    ),
    Defect(
        "sets: the first of a team waits in silence", "generation/making.py", "                self.team.wait()\n", ""
    ),
    Defect(
        "sets: other arrays in a later batch", "generation/computing.py", "if schema and found != schema:", "if False:"
    ),
    Defect(
        "sets: features of samples that failed",
        "generation/sets.py",
        "torch.where(finite[:, None], found, torch.nan)",
        "found",
    ),
    Defect(
        "sets: code that may have changed",
        "generation/identity.py",
        "if self.foreign is not None and identity is None:",
        "if False:",
    ),
    Defect("sets: hooks of a network", "generation/identity.py", ".items()), added]", ".items())]"),
    Defect("networks: draws of random numbers", "scores/networks.py", "if before[0] == after[0] and", "if False and"),
    Defect("sets: parts of other options", "cli/_sample.py", "    clear_parts(target)\n", ""),
    Defect(
        "sets: an output that came meanwhile",
        "cli/_sample.py",
        "        check_output(out, (*EXTENSIONS, FOLDER), force=force)  # it may be there by now\n",
        "",
    ),
    Defect(
        "sets: a part has the samples of another",
        "cli/_drawing.py",
        "self.whole(self.first + start, wanted",
        "self.whole(start, wanted",
    ),
    Defect(
        "sets: the measurement of a sample",
        "cli/_inverse.py",
        "ys[[i % len(ys) for i in indices]]",
        "ys[[(i + 1) % len(ys) for i in indices]]",
    ),
)
