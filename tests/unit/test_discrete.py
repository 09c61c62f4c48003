"""Discrete chains: their levels, spacings and labels, and published samplers written out from the betas alone."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import scoresde
from scoresde import InvalidArgumentError, InvalidTypeError, ScoreFnError, ScoreModel, solve, targets
from scoresde.core.sdes.records import LearnedEstimate
from scoresde.discrete import BetaChain, NoiseScales
from scoresde.scores import Clip

from .refusals import assert_refused

F64 = torch.float64
V, T = InvalidArgumentError, InvalidTypeError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def linear_betas(n=1000):
    return np.linspace(1e-4, 0.02, n)


def cosine_betas(n=1000):
    """As improved DDPM's code has them."""

    def f(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    return np.array([min(1 - f((i + 1) / n) / f(i / n), 0.999) for i in range(n)])


def scaled_linear_betas(n=1000):
    """Latent diffusion's."""
    return np.linspace(0.00085**0.5, 0.012**0.5, n) ** 2


BETAS = {"linear": linear_betas(), "cosine": cosine_betas(), "scaled linear": scaled_linear_betas()}


def close(got, wanted, rtol):
    torch.testing.assert_close(
        torch.as_tensor(got, dtype=F64), torch.as_tensor(np.asarray(wanted, dtype=float)), rtol=rtol, atol=0
    )


@pytest.mark.parametrize("name", BETAS)
def test_the_process_has_the_levels_of_the_chain(name):
    betas = BETAS[name]
    chain = BetaChain(betas)
    sde = chain.sde()
    log_alphas_bar = np.log1p(-betas.astype(np.longdouble)).cumsum()
    alphas_bar = np.exp(log_alphas_bar)
    assert float((chain.alphas_bar - torch.from_numpy(np.cumprod(1 - betas))).abs().max()) < 1e-12
    close(chain.alphas_bar, alphas_bar, 1e-12)
    close(sde.alpha(chain.times) ** 2, alphas_bar, 1e-12)
    close(sde.sigma(chain.times) ** 2, -np.expm1(log_alphas_bar), 1e-12)
    close(chain.betas, betas, 1e-10)
    before = np.concatenate([[1.0], alphas_bar[:-1]])
    close(chain.posterior_variances[1:], (betas * (1 - before) / -np.expm1(log_alphas_bar))[1:], 1e-10)
    assert chain.posterior_variances[0] == 0.0
    assert chain.times.tolist() == chain.labels.tolist() == list(range(1000))
    assert (chain.times.dtype, chain.labels.dtype, len(chain)) == (F64, torch.int64, 1000)
    assert (sde.t_min, sde.t_max, sde.prior) == (0.0, 999.0, scoresde.NormalPrior())
    assert float((sde.time(chain.log_snrs) - chain.times).abs().max()) < 1e-9


def test_the_published_chains():
    close(BetaChain.linear().betas, linear_betas(), 1e-12)
    close(BetaChain.linear().alphas_bar[-1], 4.036e-5, 1e-3)
    close(BetaChain.linear(20, 0.01, 0.3).betas, np.linspace(0.01, 0.3, 20), 1e-12)
    for n, first, last in ((1000, 4.13e-5, 2.43e-9), (4000, 9.9e-6, 1.5e-10)):
        chain = BetaChain.cosine(n)
        close(chain.betas[:-1], cosine_betas(n)[:-1], 1e-9)  # the published form cancels digits
        close(chain.betas[-1], 0.999, 1e-12)
        close(chain.betas[0], first, 5e-3)
        close(chain.alphas_bar[-1], last, 2e-2)
        assert int((chain.betas > 0.9985).sum()) == 1
    ncsn = NoiseScales.geometric()
    assert ncsn.labels.tolist() == list(range(9, -1, -1))
    close(ncsn.sigmas, np.geomspace(0.01, 1.0, 10), 1e-13)
    close(ncsn.sde(t_max=4.0).prior.std, ncsn.sigmas[4], 1e-14)
    part = BetaChain.linear(100).sde(t_min=3.0, t_max=50, prior=scoresde.NormalPrior(2.0))
    assert (part.t_min, part.t_max, part.prior.std) == (3.0, 50.0, 2.0)


def test_noise_scales_keep_the_labels_of_the_list_that_is_given():
    decreasing = [1.0, 0.5, 0.2, 0.01]  # NCSN's order: label 0 is the noisiest level
    for rising in (False, True):
        chain = NoiseScales(decreasing[::-1] if rising else decreasing)
        sde = chain.sde()
        close(chain.sigmas, decreasing[::-1], 1e-14)
        close(sde.sigma(chain.times), decreasing[::-1], 1e-14)
        assert chain.labels.tolist() == ([0, 1, 2, 3] if rising else [3, 2, 1, 0])
        assert sde.alpha(torch.linspace(0, 3, 7, dtype=F64)).tolist() == [1.0] * 7
        assert chain.label(sde.log_snr(0.0)) == (0 if rising else 3)
        assert chain.grid().tolist() == [3.0, 2.0, 1.0, 0.0]
        assert (sde.t_min, sde.t_max, sde.prior.std) == (0.0, 3.0, pytest.approx(1.0, rel=1e-14))


def published_spacings(size, n):
    """diffusers' ``set_timesteps``, and improved DDPM's ``space_timesteps``, cleanest first.

    For some n the former's ``arange`` gives one level too many, -1, which is cut here.
    """
    fractional, at = [], 0.0
    for _ in range(n):
        fractional.append(round(at))
        at += (size - 1) / (n - 1)
    return {
        "leading": [("diffusers", (np.arange(0, n) * (size // n)).round().astype(int))],
        "trailing": [("diffusers", np.round(np.arange(size, 0, -size / n)).astype(int)[n - 1 :: -1] - 1)],
        "linspace": [("diffusers", np.linspace(0, size - 1, n).round().astype(int)), ("improved DDPM", fractional)],
    }


def test_spacings_are_the_published_ones():
    """At the usual counts; at others they break some ties by their rounding errors, and differ by one level there."""
    usual = {2, 4, 5, 8, 10, 20, 25, 50, 100, 250, 500}
    for size, n in itertools.product((1000, 4000), sorted(usual | {48, 61, 103, 397, 999})):
        chain = BetaChain.linear(size, 1e-4, 0.01)
        for spacing, lists in published_spacings(size, n).items():
            got = chain.grid(n, spacing).flip(0).numpy()
            step, shift, first = {
                "leading": (size // n, 0, 0),
                "trailing": (size / n, -1, 1),
                "linspace": ((size - 1) / (n - 1), 0, 0),
            }[spacing]
            tie = np.abs(np.modf(np.arange(first, first + n) * step)[0] - 0.5) < 1e-6
            for name, wanted in lists:
                off = got != np.asarray(wanted)
                assert not (off & ~tie).any(), (n, spacing, name)
                assert np.abs(got - wanted).max() <= 1
                assert n not in usual or not off.any(), (n, spacing, name)
            assert (np.diff(got) > 0).all()
            assert abs(got[-1] - (first + n - 1) * step - shift) < 0.51
    ties = ((1000, 7, "linspace", [0, 166, 333, 500, 666, 832, 999]), (10, 4, "trailing", [1, 4, 7, 9]))
    for size, n, spacing, labels in (*ties, (10, 6, "leading", [0, 1, 2, 3, 4, 5])):
        assert BetaChain.linear(size).grid(n, spacing).tolist() == [float(i) for i in labels[::-1]]
        assert BetaChain.linear(size).respace(n, spacing).labels.tolist() == labels
    chain = BetaChain.linear()
    assert torch.equal(chain.grid(), chain.times.flip(0))
    assert torch.equal(chain.grid(7), chain.grid(7, "trailing"))
    assert torch.equal(chain.respace(7).times, chain.respace(7, "linspace").times)


def test_places_may_be_given():
    chain = BetaChain.linear(10)
    for places in ([7, 0, 3], torch.tensor([3, 7, 0]), np.array([0, 7, 3])):
        assert chain.grid(places).tolist() == [7.0, 3.0, 0.0]
        assert chain.respace(places).labels.tolist() == [0, 3, 7]
    assert chain.grid(range(0, 10, 5)).tolist() == [5.0, 0.0]


def spaced_diffusion(betas, keep):
    """Improved DDPM's ``SpacedDiffusion``: the betas of a part of the chain."""
    last, new = 1.0, []
    for i, alpha_bar in enumerate(np.cumprod(1 - betas)):
        if i in keep:
            new.append(1 - alpha_bar / last)
            last = alpha_bar
    return np.array(new)


@pytest.mark.parametrize("name", BETAS)
def test_a_respaced_chain_keeps_its_levels(name):
    chain = BetaChain(BETAS[name])
    for n in (5, 50, 250):
        part = chain.respace(n)
        keep = part.labels
        assert len(part) == n
        assert torch.equal(part.times, keep.to(F64))
        assert torch.equal(part.log_snrs, chain.log_snrs[keep])
        close(part.alphas_bar, chain.alphas_bar[keep], 1e-14)
        sde = part.sde()
        assert (sde.t_min, sde.t_max) == (0.0, 999.0)
        close(sde.alpha(part.times) ** 2, np.cumprod(1 - BETAS[name])[keep.numpy()], 1e-12)
        assert sde.same_schedule(chain.sde())
        assert torch.equal(sde.log_snr(torch.tensor([3.3, 700.7])), chain.sde().log_snr(torch.tensor([3.3, 700.7])))
        # improved DDPM, eq. 19
        betas = spaced_diffusion(BETAS[name], set(keep.tolist()))
        alphas_bar = np.cumprod(1 - betas)
        close(part.betas, betas, 1e-9)
        close(part.alphas_bar, alphas_bar, 1e-8)
        close(part.posterior_variances[1:], betas[1:] * (1 - alphas_bar[:-1]) / (1 - alphas_bar[1:]), 1e-9)


def test_respacing_again_counts_places_in_the_part():
    chain = BetaChain.linear(100)
    part = chain.respace(range(0, 100, 10))
    again = part.respace([1, 4, 9])
    assert part.labels.tolist() == list(range(0, 100, 10))
    assert again.labels.tolist() == [10, 40, 90] == again.times.long().tolist()
    assert (again.sde().t_min, again.sde().t_max) == (10.0, 90.0)
    assert len(chain) == 100
    ncsn = NoiseScales.geometric(10).respace([0, 4, 9])
    assert (ncsn.times.tolist(), ncsn.labels.tolist()) == ([0.0, 4.0, 9.0], [9, 5, 0])
    close(ncsn.sigmas, np.geomspace(0.01, 1.0, 10)[[0, 4, 9]], 1e-13)


def test_labels_off_the_chain_are_those_of_the_nearest_level():
    ncsn = NoiseScales.geometric(12)
    for chain in (BetaChain.cosine(), BetaChain.linear().respace(7), ncsn, ncsn.respace([1, 5, 6, 11])):
        levels, labels = chain.log_snrs, chain.labels
        assert torch.equal(chain.label(levels), labels)
        middle = 0.5 * (levels[1:] + levels[:-1])
        assert torch.equal(chain.label(middle), labels[:-1])  # ties go to the cleaner level
        assert torch.equal(chain.label(torch.nextafter(middle, torch.full_like(middle, math.inf))), labels[:-1])
        assert torch.equal(chain.label(torch.nextafter(middle, torch.full_like(middle, -math.inf))), labels[1:])
        ends = torch.tensor([math.inf, 1e3, -1e3, -math.inf], dtype=F64)
        assert chain.label(ends).tolist() == [int(labels[0])] * 2 + [int(labels[-1])] * 2
        low, high = float(levels[-1]) - 1, float(levels[0]) + 1
        somewhere = low + (high - low) * torch.rand(500, dtype=F64, generator=generator())
        nearest = (somewhere[:, None] - levels).abs().argmin(1)
        assert torch.equal(chain.label(somewhere), labels[nearest])
        scalar = chain.label(float(levels[1]))
        assert (scalar.dtype, scalar.ndim, int(scalar)) == (torch.int64, 0, int(labels[1]))


class Recorder(torch.nn.Module):
    """A network that keeps what it is told."""

    def __init__(self, channels=1, dtype=torch.float32):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((), 0.1, dtype=dtype))
        self.channels, self.told = channels, []

    def forward(self, x, label):
        assert label.dtype == torch.int64
        assert label.shape == (len(x),)
        assert bool((label == label[0]).all())
        self.told.append(int(label[0]))
        label += 1000  # is the network's own copy
        return torch.cat([torch.tanh(self.weight * x)] * self.channels, 1)


CHAINS = {
    "beta": BetaChain.linear(),
    "respaced": BetaChain.cosine().respace(60),
    "ncsn": NoiseScales.geometric(40, 0.01, 20.0),
    "ncsn respaced": NoiseScales.geometric(40, 0.01, 20.0).respace(12),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_labels_reach_the_network_exactly(chain):
    chain = CHAINS[chain]
    methods = {"ancestral": 1, "ddim": 1, "dpmpp_2m": 1, "unipc2": 1, "pc": 2, "heun": 2}
    cells = [(method, torch.float32) for method in methods] + [("dpmpp_2m", torch.bfloat16), ("heun", F64)]
    sde, grid = chain.sde(), chain.grid(10)
    wanted = [int(chain.labels[chain.times == t]) for t in grid]  # the original ones
    for method, dtype in cells:
        net = Recorder(dtype=dtype)
        model = ScoreModel(net, sde, "noise", "index", chain=chain)
        solve(sde, model, torch.ones(2, 3), method=method, grid=grid, denoise=True, seed=0)
        steps = [label for label in wanted[:-1] for _ in range(methods[method])]
        if method == "heun":  # looks at the end of its step too
            steps = [label for pair in itertools.pairwise(wanted) for label in pair]
        assert net.told == [*steps, wanted[-1]], (method, dtype)


def test_labels_on_another_process_go_by_the_log_snr():
    """A network of x_0 + rho z serves any process, if it is fed x / alpha."""
    chain, ncsn, vp, net = BetaChain.linear(), NoiseScales.geometric(10, 0.01, 10.0), scoresde.VPSDE(), Recorder()
    for i in (0, 1, 400, 999):
        time = torch.full((2,), (i + 1) / 1000, dtype=F64)  # near DDPM's level i
        ScoreModel(net, vp, "noise", "index", chain=chain)(torch.ones(2, 3), time)
    assert np.abs(np.array(net.told) - [0, 1, 400, 999]).max() <= 3
    time = vp.time(-2 * math.log(float(ncsn.sigmas[3])))
    ScoreModel(net, vp, "noise", "index", "x/alpha", chain=ncsn)(torch.ones(2, 3), time)
    assert net.told[-1] == 6


def predict(x, label):
    """A made-up noise prediction."""
    return torch.tanh(0.7 * x + 0.002 * label - 0.4)


def network(x, label):
    assert label.dtype == torch.int64
    return predict(x, label.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1)))


def widths(x, label):
    """A made-up second half of the channels, also beyond [-1, 1]."""
    return 1.3 * torch.sin(3 * x + 0.01 * label)


def learned_network(x, label):
    label = label.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return torch.cat([predict(x, label), widths(x, label)], 1)


def draws(count, like, seed=1):
    z = torch.randn(count, *like.shape, dtype=F64, generator=generator(seed))
    used = []

    def noise(k, like):
        used.append(k)
        return z[k]

    return z, noise, used


def ddpm_loop(betas, labels, x, z, log_variance):
    """Ho et al. (2020), algorithm 2: no noise in the last step."""
    alphas = 1 - betas
    alphas_bar = np.cumprod(alphas)
    for k, i in enumerate(range(len(betas) - 1, -1, -1)):
        eps = predict(x, labels[i])
        mean = (x - betas[i] / math.sqrt(1 - alphas_bar[i]) * eps) / math.sqrt(alphas[i])
        x = mean + torch.as_tensor(0.5 * log_variance(i, x)).exp() * z[k] if i > 0 else mean
    return x


def posterior_log_variance_clipped(betas):
    """Improved DDPM's: the first, ln 0, is replaced by the second."""
    alphas_bar = np.cumprod(1 - betas)
    variance = betas * (1 - np.append(1.0, alphas_bar[:-1])) / (1 - alphas_bar)
    return np.log(np.append(variance[1], variance[1:]))


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
@pytest.mark.parametrize(
    ("name", "n", "event"),
    [("linear", None, (3,)), ("linear", 50, (2, 4, 4)), ("cosine", None, (3,)), ("cosine", 25, (2,))],
)
def test_ancestral_is_the_published_loop(name, n, event, variance):
    """DDPM with both variances, and improved DDPM with its learned one (eq. 15), whole and respaced."""
    whole = BetaChain(BETAS[name])
    chain = whole if n is None else whole.respace(n)
    labels = chain.labels.tolist()
    betas = spaced_diffusion(BETAS[name], set(labels))
    x = torch.randn(2, *event, dtype=F64, generator=generator())
    z, noise, used = draws(len(betas) - 1, x)
    small, large = posterior_log_variance_clipped(betas), np.log(betas)

    def log_variance(i, x):
        if variance == "learned":
            share = (widths(x, labels[i]) + 1) / 2
            return share * large[i] + (1 - share) * small[i]
        return small[i] if variance == "small" else large[i]

    sde = chain.sde()
    net, told = (learned_network, "learned_range") if variance == "learned" else (network, None)
    model = ScoreModel(net, sde, "noise", "index", chain=chain, variance=told)
    got = solve(sde, model, x, method="ancestral", variance=variance, grid=chain.grid(), noise=noise, denoise=True)
    wanted = ddpm_loop(betas, labels, x, z, log_variance)
    assert got.evaluations == len(betas)
    assert used == list(range(len(betas) - 1))  # none for the last step
    assert float((got.x - wanted).abs().max()) < 1e-10 * float(wanted.abs().max())


@pytest.mark.parametrize(("share", "variance"), [(0.0, "small"), (1.0, "large")])
def test_the_ends_of_the_learned_range_are_the_fixed_variances(share, variance):
    chain = BetaChain.linear().respace(20)
    sde = chain.sde()
    x = torch.randn(2, 3, dtype=F64, generator=generator())
    fixed = ScoreModel(network, sde, "noise", "index", chain=chain)
    both = lambda x, i: torch.cat([network(x, i), torch.full_like(x, 2 * share - 1)], 1)  # noqa: E731
    learned = ScoreModel(both, sde, "noise", "index", chain=chain, variance="learned_range")
    _, noise, _ = draws(19, x)
    run = {"grid": chain.grid(), "noise": noise, "method": "ancestral"}
    a = solve(sde, learned, x, variance="learned", **run).x
    b = solve(sde, fixed, x, variance=variance, **run).x
    assert float((a - b).abs().max() / b.abs().max()) < 1e-14
    assert torch.equal(learned.variance(x, 500.0), torch.full_like(x, share))
    # other methods leave the variance aside
    run["method"] = "ddim_eta"
    assert torch.equal(solve(sde, learned, x, **run).x, solve(sde, fixed, x, **run).x)


def test_the_variance_of_a_model():
    """It is kept where the data estimate is limited."""
    chain = BetaChain.linear()
    model = ScoreModel(learned_network, chain.sde(), "noise", "index", chain=chain, variance="learned_range")
    x, node = torch.randn(2, 3, 4, 4, generator=generator()), chain.sde().node(900.0)
    wanted = (widths(x, torch.tensor([7, 900]).reshape(-1, 1, 1, 1)) + 1) / 2
    torch.testing.assert_close(model.variance(x, torch.tensor([7.0, 900.0])), wanted)
    free, limited = model.estimate(x, node), Clip(model).estimate(x, node)
    assert isinstance(free, LearnedEstimate) and isinstance(limited, LearnedEstimate)
    torch.testing.assert_close(free.variance[1], wanted[1])
    torch.testing.assert_close(free.noise, predict(x, 900))
    assert torch.equal(limited.variance, free.variance) and torch.equal(limited.data, free.data.clamp(-1, 1))
    assert not torch.equal(limited.data, free.data)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_ddim_is_the_published_update(spacing):
    """Song, Meng, Ermon (2021), eq. 12 and 16; the last step goes onto alpha_bar = 1."""
    chain = BetaChain.linear()
    sde = chain.sde()
    grid = chain.grid(20, spacing)
    alphas_bar = [*np.cumprod(1 - linear_betas())[grid.long().numpy()], 1.0]
    x = torch.randn(2, 3, dtype=F64, generator=generator())
    z, noise, _ = draws(20, x)
    model = ScoreModel(network, sde, "noise", "index", chain=chain)
    for eta in (0.0, 0.4, 1.0):
        wanted = x
        for k, label in enumerate(grid.tolist()):
            now, after = alphas_bar[k], alphas_bar[k + 1]
            eps = predict(wanted, label)
            sigma = eta * math.sqrt((1 - after) / (1 - now)) * math.sqrt(1 - now / after)
            data = (wanted - math.sqrt(1 - now) * eps) / math.sqrt(now)
            wanted = math.sqrt(after) * data + math.sqrt(1 - after - sigma**2) * eps + sigma * z[k]
        for options in [{"method": "ddim_eta", "eta": eta}, *([] if eta else [{"method": "ddim"}])]:
            got = solve(sde, model, x, grid=grid, noise=noise, denoise=True, **options).x
            assert float((got - wanted).abs().max()) < 1e-10 * float(wanted.abs().max())


def test_annealed_langevin_is_the_published_loop():
    """Song, Ermon (2019), algorithm 1 as its code has it: epsilon = 2 (snr sigma)^2 at each level but the first."""
    chain = NoiseScales.geometric(10)
    sde = chain.sde()
    x = torch.rand(2, 3, dtype=F64, generator=generator())
    z, noise, _ = draws(9 * 5, x)
    step_lr = 2e-5
    snr = math.sqrt(step_lr / 2) / 0.01
    sigmas = np.geomspace(1.0, 0.01, 10)
    wanted, k = x, 0
    for label in range(1, 10):
        step = step_lr * (sigmas[label] / sigmas[-1]) ** 2
        for _ in range(5):
            score = -predict(wanted, label) / sigmas[label]
            wanted = wanted + step * score + math.sqrt(2 * step) * z[k]
            k += 1
    wanted = wanted - sigmas[-1] * predict(wanted, 9)
    model = ScoreModel(
        lambda x, i: -network(x, i) / torch.as_tensor(sigmas)[i][:, None], sde, "score", "index", chain=chain
    )
    got = solve(sde, model, x, method="langevin", snr=snr, moves=5, grid=chain.grid(), noise=noise, denoise=True).x
    assert float((got - wanted).abs().max()) < 1e-10


def law(sde, model, grid, mean, std, **options):
    """Mean and variance of the result for N(mean, std^2) at the start, of one dimension: the solver is an affine map.

    Row 0 has all draws zero, row 1 the start one higher, row 2 + k the k-th draw one.
    """
    count = options.pop("draws")
    x = torch.full((count + 2, 1), mean, dtype=F64)
    x[1] += 1

    def noise(k, like):
        z = torch.zeros_like(like)
        z[2 + k] = 1
        return z

    out = solve(sde, model, x, grid=grid, noise=noise, **options).x[:, 0]
    effect = out[1:] - out[0]
    return float(out[0]), float(std**2 * effect[0] ** 2 + (effect[1:] ** 2).sum())


def of_gaussian(chain, mean, variance):
    """The noise of N(mean, variance) data, told labels: a table of one row per level."""
    levels = chain.scale(chain.log_snrs), chain.sde().sigma(chain.times)
    alpha, sigma = (torch.zeros_like(v).index_copy(0, chain.labels, v) for v in levels)

    def net(x, label):
        a, s = alpha[label][:, None], sigma[label][:, None]
        return s * (x - a * mean) / (a**2 * variance + s**2)

    return ScoreModel(net, chain.sde(), "noise", "index", chain=chain)


@pytest.mark.parametrize("chain", [BetaChain.linear(), BetaChain.cosine()], ids=["linear", "cosine"])
@pytest.mark.parametrize("variance", ["small", "large"])
def test_the_fixed_variances_are_exact_for_their_data(chain, variance):
    """Small for a point, large for N(0, I); respaced in any way."""
    sde = chain.sde()
    mean, data = (0.7, 0.0) if variance == "small" else (0.0, 1.0)
    model = of_gaussian(chain, mean, data)
    for n in (2, 10, 30):
        grid = chain.grid(n)
        ends = [(float(sde.alpha(t)), float(sde.sigma(t))) for t in (float(grid[0]), float(grid[-1]))]
        start, stop = ((a * mean, a * a * data + s * s) for a, s in ends)
        run = {"draws": n - 1, "method": "ancestral", "variance": variance}
        got = law(sde, model, grid, start[0], math.sqrt(start[1]), **run)
        assert got == pytest.approx(stop, abs=1e-10)


TARGET = targets.Gaussian(torch.tensor([0.5, -1.0], dtype=F64), torch.tensor([[0.3, 0.1], [0.1, 0.6]], dtype=F64))
PROCESSES = {
    "linear": BetaChain.linear(),
    "cosine": BetaChain.cosine(),  # its last step, clipped, multiplies the SNR by 1000
    "cosine respaced": BetaChain.cosine().respace(100),
    "ncsn": NoiseScales.geometric(50, 0.01, 20.0),
}
ERRORS = [
    ("ddim", {"steps": 100}, 6e-2),
    ("dpmpp_2m", {"steps": 100}, 2e-3),
    ("unipc2", {"steps": 100}, 5e-4),
    ("rk45", {"rtol": 1e-7, "atol": 1e-7}, 3e-5),
]


@pytest.mark.parametrize("chain", PROCESSES)
def test_solvers_on_the_process_of_a_chain(chain):
    """Deterministic ones end near the exact map; of predictor and corrector, the distribution of the result for
    one-dimensional data is compared, exactly, with that of the process."""
    sde = PROCESSES[chain].sde()
    x = sde.sigma(sde.t_max) * torch.randn(3, 2, dtype=F64, generator=generator())
    wanted = TARGET.flow_map(x, sde, sde.t_max, sde.t_min)
    for method, options, bound in ERRORS:
        got = solve(sde, TARGET.score(sde), x, method=method, **options).x
        assert float((got - wanted).abs().max()) < bound, method
    target = targets.Gaussian(torch.tensor([0.5], dtype=F64), torch.tensor([[0.3]], dtype=F64))
    grid = scoresde.grids.log_snr(sde, sde.t_max, sde.t_min, 200)
    start, stop = (target_law(sde, t, 0.5, 0.3) for t in (sde.t_max, sde.t_min))
    mean, variance = law(sde, target.score(sde), grid, start[0], math.sqrt(start[1]), draws=400, method="pc")
    assert mean == pytest.approx(stop[0], abs=0.01)
    assert variance == pytest.approx(stop[1], rel=0.1)


def target_law(sde, t, mean, variance):
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    return alpha * mean, alpha**2 * variance + sigma**2


@pytest.mark.parametrize("chain", ["linear", "cosine", "ncsn"])
def test_a_network_of_labels_is_the_network_of_times_on_the_grid_of_its_chain(chain):
    chain = PROCESSES[chain]
    sde = chain.sde()
    x = torch.randn(3, 1, dtype=F64, generator=generator())
    told_times = targets.Gaussian(torch.tensor([0.5], dtype=F64), torch.tensor([[0.3]], dtype=F64)).score(sde)
    for method in ("ddim", "dpmpp_2m", "unipc2", "ancestral", "pc"):
        run = {"method": method, "grid": chain.grid(25), "denoise": True, "seed": 3}
        a, b = (solve(sde, f, x, **run).x for f in (of_gaussian(chain, 0.5, 0.3), told_times))
        assert float((a - b).abs().max()) < 1e-10, method


CURVES = {
    "linear": BetaChain.linear(),
    "cosine": BetaChain.cosine(),
    "two levels": BetaChain([0.1, 0.5]),
    "three levels": BetaChain([1e-6, 0.9, 1e-3]),
    "uneven": NoiseScales([100.0, 99.0, 1.0, 0.1, 0.0999, 1e-6]),
    "ncsn": NoiseScales.geometric(10),
}


@pytest.mark.parametrize("chain", CURVES)
def test_the_curve_rises_and_is_smooth(chain):
    chain = CURVES[chain]
    sde = chain.sde()
    levels, last = chain.log_snrs, len(chain) - 1
    inside = torch.linspace(0, last, 20 * last + 1, dtype=F64)
    log_snr = sde.log_snr(inside)
    assert bool((log_snr.diff() < 0).all())
    assert float((log_snr[::20] - levels).abs().max()) < 1e-12
    # the slope is the same from both sides of a level, and is a derivative: of f and g^2 as well
    t = torch.cat([chain.times[1:-1], torch.linspace(0.013, last - 0.013, 333, dtype=F64)])
    u = t.clone().requires_grad_()
    (slope,) = torch.autograd.grad(sde.log_snr(u).sum(), u)
    assert bool((slope < 0).all())
    h = 1e-6
    scale = slope.abs() + 10 * float(levels.diff().abs().max())  # of the second derivative, within a cell's width
    for a, b in ((h, 0.0), (0.0, -h)):
        side = (sde.log_snr(t + a) - sde.log_snr(t + b)) / h
        assert float(((side - slope).abs() / scale).max()) < 1e-5
    # linear beyond the ends
    beyond = torch.tensor([-2.0, -1.0, 0.0], dtype=F64)
    for t in (beyond, last - beyond.flip(0)):
        assert float(sde.log_snr(t).diff().diff().abs()) < 1e-9


@pytest.mark.parametrize("chain", CURVES)
def test_drift_and_diffusion_are_those_of_the_curve(chain):
    chain = CURVES[chain]
    sde = chain.sde()
    t = torch.linspace(0, len(chain) - 1, 4 * len(chain) + 1, dtype=F64, requires_grad=True)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    exploding = isinstance(chain, NoiseScales)
    f = torch.zeros_like(t) if exploding else torch.autograd.grad(alpha.log().sum(), t, retain_graph=True)[0]
    (dsigma2,) = torch.autograd.grad((sigma**2).sum(), t)
    g2 = dsigma2 - 2 * f * sigma.detach() ** 2
    at = t.detach()
    drift = sde.drift(torch.ones(len(at), 1, dtype=F64), at)[:, 0]
    torch.testing.assert_close(drift, f, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(sde.diffusion(at) ** 2, g2, rtol=1e-9, atol=1e-15)


CHAIN = BetaChain.linear(100)
BAD = [
    (lambda: BetaChain([0.1]), V, ("`betas`", "two", "1")),
    (lambda: BetaChain([0.1, 1.0]), V, ("`betas`", "(0, 1)", "entry 1")),
    (lambda: BetaChain([0.1, 1e-18]), V, ("`betas`", "noisier", "levels 0 and 1")),
    (lambda: BetaChain.linear(1), V, ("`n`", "at least 2", "1")),
    (lambda: BetaChain.cosine(10, max_beta=1.0), V, ("`max_beta`", "(0, 1)", "1.0")),
    (lambda: NoiseScales([1.0, 1.0]), V, ("`sigmas`", "monotone", "entries 0 and 1")),
    (lambda: NoiseScales.geometric(10, 1.0, 0.1), V, ("`sigma_min`", "below", "0.1")),
    (lambda: CHAIN.grid(1), V, ("`n`", "at least 2", "1", "denoise=True")),
    (lambda: CHAIN.grid(101), V, ("`n`", "at most 100", "101")),
    (lambda: CHAIN.grid([5, 3, 5]), V, ("`n`", "once", "5")),
    (lambda: CHAIN.grid(4, "trailling"), V, ("`spacing`", "did you mean 'trailing'")),
    (lambda: CHAIN.sde(t_min=-1.0), V, ("`t_min`", "[0, 99]", "-1")),
    (lambda: CHAIN.respace([5, 9]).sde(t_max=10.0), V, ("`t_max`", "[5, 9]", "10")),
    (lambda: CHAIN.label(math.nan), V, ("`log_snr`", "nan")),
    (lambda: wrapped(chain=None), V, ("index", "chain.sde()")),
    (lambda: wrapped(time_input="t"), V, ("index", "`chain`")),
    (lambda: wrapped(sde=scoresde.VESDE()), V, ("scaled by", "VESDE", "chain.sde()")),
    (lambda: wrapped(chain=NoiseScales.geometric()), V, ("scaled by 1", "NoiseScales")),
    (lambda: wrapped(variance="learned"), V, ("`variance`", "did you mean 'learned_range'")),
    (lambda: wrapped().variance(torch.ones(1, 2), 3.0), V, ("learned_range",)),
]


def test_refuses_bad_input():
    assert_refused(BAD)


def wrapped(sde=None, time_input="index", chain=CHAIN, **options):
    return ScoreModel(Recorder(), CHAIN.sde() if sde is None else sde, "noise", time_input, chain=chain, **options)


def test_ancestral_refuses_a_variance_before_the_first_evaluation():
    sde, net = CHAIN.sde(), Recorder()
    model = ScoreModel(net, sde, "noise", "index", chain=CHAIN)
    for variance, word in (("lrge", "did you mean 'large'"), (None, "None"), ("learned", "learned_range")):
        run = {"method": "ancestral", "grid": CHAIN.grid(5), "variance": variance}
        for score_fn in (model, TARGET.score(sde), lambda x, t: -x):
            with pytest.raises(V, match=word):
                solve(sde, score_fn, torch.ones(1, 2), **run)
    assert net.told == []


def test_a_network_without_the_second_half_of_the_channels_is_named():
    model = wrapped(variance="learned_range")
    with pytest.raises(ScoreFnError, match=r"\(2, 6\).*got \(2, 3\).*doubled"):
        model(torch.ones(2, 3), 3.0)
    two = ScoreModel(Recorder(channels=2), CHAIN.sde(), "noise", "index", chain=CHAIN)
    with pytest.raises(ScoreFnError, match=r"\(2, 3\).*got \(2, 6\)"):
        two(torch.ones(2, 3), 3.0)
