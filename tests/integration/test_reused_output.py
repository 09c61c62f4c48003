"""A network may write all of its outputs to the same memory, as a CUDA graph or an inference engine does, or return its
input. Every result is bitwise that of the same network with new outputs."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import scoresde
from scoresde import ScoreModel, Solver, StepResult, guidance, inverse, solvers, targets
from scoresde.solvers.registry import make_solver
from tests.parameters import described

Net = Callable[..., Tensor]
SDE = scoresde.VPSDE()
FLOW = scoresde.FlowSDE()
KEEPERS = ("dpm_2m", "rho_heun", "unipc2", "dpm23", "dpmpp_2m_sde")


def fresh(x: Tensor, t: Tensor, label: Tensor | float = 0.0) -> Tensor:
    """Elementwise, of + - * /: the bits of a number do not depend on its place."""
    shift = 0.1 * torch.as_tensor(label).reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
    return 0.3 * x + 0.2 * x / (1 + x * x) - 0.05 * t.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype) + shift


class _Into(torch.autograd.Function):
    """The identity, written to given memory."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, memory: Tensor) -> Tensor:
        memory.data.copy_(out)  # autograd is not told, as it is not by a CUDA graph
        return memory.data

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return slope, None


class Reusing:
    """A network whose outputs are views of the same memory: of one place, of two in turn, or inside a larger tensor.

    Its next call spoils what the last one returned even where it needs less of the memory.
    """

    def __init__(self, net: Net = fresh, places: int = 1, margin: int = 0) -> None:
        self.net, self.places, self.margin = net, places, margin
        self.memory: dict[Any, list[Tensor]] = {}
        self.calls = 0

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | float = 0.0) -> Tensor:
        out = self.net(x, t, label)
        rows = max(64, len(out))
        places = self.memory.setdefault((rows, out.shape[1:], out.dtype), [])
        if len(places) < self.places:
            places.append(out.new_empty(rows, *(n + 2 * self.margin for n in out.shape[1:])))
        memory = places[self.calls % len(places)]
        memory.data.fill_(torch.nan)
        self.calls += 1
        inside = (slice(0, len(out)), *[slice(self.margin, self.margin + n) for n in out.shape[1:]])
        written: Tensor = _Into.apply(out, memory[inside])
        return written

    def spoil(self) -> None:
        for places in self.memory.values():
            for memory in places:
                memory.data.fill_(torch.nan)


def twin(x: Tensor, t: Tensor, label: Any = 0.0) -> Tensor:
    return x.clone()


# what is called, and a network with new outputs of the same values
NETS: dict[str, tuple[Callable[[], Net], Net]] = {
    "one buffer": (Reusing, fresh),
    "two buffers": (lambda: Reusing(places=2), fresh),
    "inside a larger one": (lambda: Reusing(margin=1), fresh),
    "its input": (lambda: lambda x, t, label=0.0: x, twin),
    "a view of its input": (lambda: lambda x, t, label=0.0: x.view_as(x)[...], twin),
}
ONE = {"one buffer": NETS["one buffer"]}
TWO = {**ONE, "its input": NETS["its input"]}


def doubled(net: Net) -> Net:
    """With the channels of a learned variance."""
    return lambda x, t, label=0.0: torch.cat([net(x, t, label), 0.1 * net(x, t, label)], dim=1)


def model(net: Net, prediction: str, sde: scoresde.AffineSDE = SDE, **options: Any) -> ScoreModel:
    return ScoreModel(net, sde, prediction, "t", **options)


def pair(net: Net, prediction: str = "noise") -> tuple[ScoreModel, ScoreModel]:
    """Two questions to one network that cannot be one call."""
    return tuple(model(net, prediction, context={"label": k}, sigma_data=0.5 + k) for k in (1.0, 0.0))  # type: ignore[return-value]


def split(net: Net) -> Any:
    """One with `estimate` of its own, both parts of which are the network's."""

    class Own:
        sde, rowwise = SDE, True

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            return net(x, t)

        def estimate(self, x: Tensor, node: Any) -> scoresde.Estimate:
            noise = net(x, torch.as_tensor(node.t))
            return scoresde.Estimate(data=noise, noise=noise)

    return Own()


def tall(net: Net, **options: Any) -> Any:
    single, prior = pair(net)
    del single.context["label"]
    return guidance.tall(single, prior, {"label": torch.tensor([0.5, 1.0, -1.0])}, **options)


def density(x: Tensor, t: Tensor) -> Tensor:
    return -0.1 * (x * x).sum(1)


VALUES: dict[str, Callable[[Net], Any]] = {
    "bare": lambda net: net,
    **{p: lambda net, p=p: model(net, p) for p in ("score", "noise", "data", "v", "flow", "edm")},
    "estimates of its own": split,
    "x/alpha": lambda net: ScoreModel(net, SDE, "data", "rho", "x/alpha"),
    "on another process": lambda net: model(net, "noise", FLOW).on(SDE_WITHIN),
    "clip": lambda net: scoresde.scores.Clip(model(net, "data"), -0.5, 0.5),
    "conditional": lambda net: guidance.conditional(model(net, "noise"), label=2.0),
    "classifier-free, one call": lambda net: guidance.classifier_free(
        *(model(net, "noise", context={"label": k}) for k in (1.0, 0.0)), 2.0
    ),
    "classifier-free": lambda net: guidance.classifier_free(*pair(net), 2.0),
    "classifier-free, data": lambda net: guidance.classifier_free(*pair(net, "data"), 2.0, rescale=0.5),
    "classifier-free, in an interval": lambda net: guidance.classifier_free(*pair(net), 2.0, interval=(-2.0, 2.0)),
    "classifier-free, bare": lambda net: guidance.classifier_free(
        lambda x, t: net(x, t, 1.0), lambda x, t: net(x, t), 2.0
    ),
    "product": lambda net: guidance.product(*pair(net), base=model(net, "noise", sigma_data=3.0)),
    "mixture": lambda net: guidance.mixture(pair(net), [lambda x, t: 0 * x[:, 0], density]),
    "classifier": lambda net: guidance.classifier_guidance(model(net, "noise"), density, 0.5),
    "likelihood": lambda net: guidance.likelihood_guidance(
        model(net, "noise"), lambda data: -(data[:, 0] * data[:, 0]), through=False
    ),
    "many observations": lambda net: tall(net, covariances=torch.full((3, 2), 0.1), prior_covariance=torch.ones(2)),
    "many observations, in parts": lambda net: tall(net, chunk=1),
    "a rule": lambda net: inverse.condition(model(net, "data"), torch.eye(2)[:1], torch.ones(1), method="ddnm"),
}
SDE_WITHIN = scoresde.within(SDE, scoresde.core.sdes.span.log_snr_range(FLOW))


def equal(a: Any, b: Any) -> bool:
    return bool(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))


def check(solve: Callable[[Any], Any], make: Callable[[Net], Any], nets: Mapping[str, Any] = NETS) -> None:
    """A function of a score function gives the same tensors for networks of both kinds."""
    expected: dict[Net, Any] = {}
    for name, (reusing, new) in nets.items():
        net = reusing()
        wanted = expected[new] = expected.get(new) or solve(make(new))
        got = solve(make(net))
        if isinstance(net, Reusing):
            net.spoil()
        for a, b in zip(wanted, got, strict=True):
            assert equal(a, b), (name, float((a - b).abs().max()))


def states(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def run(score_fn: Any, method: Any, sde: scoresde.AffineSDE = SDE, **options: Any) -> list[Tensor]:
    adaptive = getattr(method, "adaptive", False)
    budget: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-2, "max_steps": 8} if adaptive else {"steps": 4}
    if "grid" in options:
        budget = {}
    x = states(*options.pop("shape", (3, 2)))
    # samples that fail, with a network that is no score, fail alike
    given = {"seeds": range(3), "throw": False, "save_at": "steps", **budget, **options}
    solution = scoresde.solve(sde, score_fn, x, method=method, **given)
    return [solution.x, solution.nfe, solution.xs] if solution.xs is not None else [solution.x, solution.nfe]


METHODS = [m for m in scoresde.methods() if m.name == m.solver.name and m.name not in ("smc", "annealed_langevin")]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_method_gives_the_same_whatever_memory_the_network_writes_to(method: scoresde.Method) -> None:
    options = {"save_at": [0.5]} if method.solver().own_steps else {}
    for kind in ("noise", "data"):
        check(lambda f: run(f, method.solver(), **options), VALUES[kind], TWO)


@pytest.mark.parametrize("kind", VALUES)
def test_so_do_all_kinds_of_score_functions(kind: str) -> None:
    sde = SDE_WITHIN if kind == "on another process" else SDE
    check(lambda f: run(f, solvers.DPM2M(), sde), VALUES[kind])
    check(lambda f: run(f, solvers.DPM23(), sde), VALUES[kind], ONE)


VARIANTS: list[Solver] = [
    solvers.UniPC(order=4),
    solvers.UniPC(order=5, prediction="noise"),
    solvers.UniPC3(correct_last=True, variant="full"),
    solvers.SASolver(3, 4),
    solvers.EDM(a=0.5),
    solvers.Restart(((0.2, 1.0, 2, 2), (0.05, 0.1))),
    solvers.RK45(form="noise"),
    solvers.RK23(form="data"),
    solvers.DPMppSDE(r=0.3),
    solvers.PredictorCorrector(solvers.DPMpp2M(), scoresde.UnderdampedCorrector(), order="pc"),
    solvers.PredictorCorrector(solvers.Ancestral(), scoresde.MALACorrector(density)),
    solvers.PredictorCorrector(solvers.Ancestral(), scoresde.MALACorrector(density, moves=3), order="pc"),
    solvers.PredictorCorrector(solvers.DDIM(), scoresde.LangevinCorrector(moves=3, rule="sample")),
]


@pytest.mark.cells(9)
@pytest.mark.parametrize("solver", VARIANTS, ids=described)
def test_so_do_variants_and_correctors(solver: Solver) -> None:
    for kind in ("bare", "noise", "classifier-free, data"):
        check(lambda f: run(f, solver), VALUES[kind], TWO)


@pytest.mark.parametrize("name", ["torchdiffeq:dopri5", "torchdiffeq:rk4", "scipy:RK45", "torchdiffeq:explicit_adams"])
def test_so_do_other_libraries_on_every_clock(name: str) -> None:
    cls = {m.name: m.solver for m in scoresde.methods()}[name]
    for clock, kind in itertools.product(("time", "log_snr", "rho"), ("noise", "data")):
        check(lambda f, clock=clock: run(f, cls(clock=clock), save_at=None), VALUES[kind], TWO)


FIXED = [m for m in METHODS if m.kind != "backend" and not m.adaptive]
ENDS = [m for m in FIXED if m.solver().noise_limit or m.solver().data_limit]


@pytest.mark.cells(14)
@pytest.mark.parametrize("method", ENDS, ids=lambda m: m.name)
def test_the_ends_and_the_result_belong_to_the_solve(method: scoresde.Method) -> None:
    # at the data end alpha is 1 and sigma 0, and a step is the network's own output
    sde, solver = scoresde.FlowSDE(t_min=0.0, t_max=1.0), method.solver()
    times = [1.0 if solver.noise_limit else 0.9, 0.6, 0.3, 0.0 if solver.data_limit else 0.1]
    for prediction in ("data", "v", "flow"):
        for nodes, denoise in ((times, False), (times[::3], True)):
            options = {"grid": torch.tensor(nodes, dtype=torch.float64), "denoise": denoise}
            check(lambda f, o=options: run(f, solver, sde, **o), lambda net, p=prediction: model(net, p, sde), TWO)


def test_a_learned_variance_is_a_view_of_the_output() -> None:
    nets = {
        "one buffer": (lambda: Reusing(doubled(fresh)), doubled(fresh)),
        "two buffers": (lambda: Reusing(doubled(fresh), places=2), doubled(fresh)),
    }
    for name in ("dpm_2m", "rho_heun", "unipc3", "ancestral", "adams", "rk45"):
        for prediction in ("noise", "data"):
            solver = solvers.Ancestral(variance="learned") if name == "ancestral" else make_solver(name, {})
            make = lambda net, p=prediction: model(net, p, variance="learned_range")  # noqa: E731
            check(lambda f, solver=solver: run(f, solver, shape=(3, 4, 2)), make, nets)


def test_so_do_other_dtypes_and_a_graph() -> None:
    for dtype, kind, method in itertools.product((torch.float32, torch.bfloat16), ("noise", "data"), KEEPERS):
        check(lambda f, m=method, d=dtype: run(f, make_solver(m, {}), dtype=d), VALUES[kind], ONE)

    def slope(method: str) -> Callable[[Any], list[Tensor]]:
        def solve(score_fn: Any) -> list[Tensor]:
            x = states(3, 2).requires_grad_()
            grid = scoresde.grids.resolve("log_snr", SDE, 1.0, 1e-3, 4).requires_grad_()
            end = scoresde.solve(SDE, score_fn, x, method=method, grid=grid, differentiable=True, seeds=range(3)).x
            return [end.detach(), *torch.autograd.grad(end.square().sum(), (x, grid))]

        return solve

    for kind in ("noise", "data", "v", "estimates of its own", "classifier-free", "classifier-free, bare"):
        for method in ("unipc2", "rho_heun", "ddim"):
            check(slope(method), VALUES[kind], ONE)


@pytest.mark.parametrize("kind", ["noise", "classifier-free, data"])
def test_densities_and_codes(kind: str) -> None:
    x = 0.3 * states(3, 2)

    def density(**options: Any) -> Callable[[Any], list[Tensor]]:
        def solve(score_fn: Any) -> list[Tensor]:
            given = {"seeds": range(3), "rtol": 1e-1, "atol": 1e-1, "check": False, "throw": False, "max_steps": 12}
            given.update(options)
            got = scoresde.log_likelihood(SDE, score_fn, x, **given)
            return [got.log_prob, got.latent, got.nfe]

        return solve

    for divergence, probes in (("exact", 1), ("hutch++", 3)):
        check(density(divergence=divergence, probes=probes), VALUES[kind], ONE)
    for form in ("noise", "data", "x"):
        check(density(method="rk23", form=form, divergence="exact"), VALUES[kind], ONE)
    for coder in (scoresde.encode, scoresde.decode):
        check(lambda f, coder=coder: [coder(SDE, f, x, rtol=1e-2, atol=1e-2, throw=False).x], VALUES[kind], ONE)


@pytest.mark.parametrize("kind", ["noise", "data"])
def test_the_checks_of_a_likelihood_compare_several_answers(kind: str) -> None:
    options = {"seeds": range(3), "rtol": 1e-2, "atol": 1e-2, "divergence": "exact"}
    target = targets.Gaussian(torch.zeros(2, dtype=torch.float64), 0.3)
    exact = getattr(model(lambda x, t: target.score(SDE)(x, t), "score"), kind)

    def net(x: Tensor, t: Tensor, label: Any = 0.0) -> Tensor:
        out: Tensor = exact(x, t)
        return out

    x = target.sample(3, generator=torch.Generator().manual_seed(0)).double()
    both = {"one buffer": (lambda: Reusing(net), net)}
    for d in (False, True, "checkpoint", "adjoint"):
        given = {"differentiable": d, **options}
        check(lambda f, o=given: [scoresde.log_likelihood(SDE, f, x, **o).log_prob], VALUES[kind], both)

    def other(x: Tensor, t: Tensor, label: Any = 0.0) -> Tensor:
        return net(x, t) + torch.rand((), dtype=x.dtype)

    for random in (other, Reusing(other)):
        torch.manual_seed(0)  # two draws may be close by chance
        with pytest.raises(scoresde.ScoreFnError, match="not deterministic"):
            scoresde.log_likelihood(SDE, model(random, kind), x)


def test_a_blocked_gradient_is_seen_though_both_answers_are_in_one_place() -> None:
    @torch.no_grad()
    def blocked(x: Tensor, t: Tensor, label: Any = 0.0) -> Tensor:
        return fresh(x, t)

    guided = guidance.likelihood_guidance(model(Reusing(blocked), "noise"), lambda data: -data.square().sum(1))
    with pytest.raises(scoresde.ScoreFnError, match="blocks gradients"):
        guided(states(3, 2), 0.5)


def test_fits_checks_bounds_and_particles() -> None:
    fit: dict[str, Any] = {"x": states(4, 2), "iterations": 1, "starts": ("log_snr",), "method": "dpm_2m"}
    gaussian, data = targets.Gaussian(torch.zeros(2, dtype=torch.float64), 1.0), 0.5 * states(20, 2)
    tilt: dict[str, Any] = {"steps": 5, "particles": 3, "seed": 0}

    def start(f: Any) -> list[Tensor]:
        found = scoresde.fit_start(SDE, f, gaussian, rtol=0.5, x=states(4, 2), levels=8)
        return [torch.tensor([found.t, found.bound])]

    def report(f: Any) -> list[Tensor]:
        found = scoresde.check_score(SDE, f, data, levels=3)
        return [torch.tensor([*found.error, *found.alternatives.values()])]

    places: list[Callable[[Any], list[Tensor]]] = [
        *(lambda f, g=g: [torch.tensor(scoresde.fit_grid(SDE, f, 3, gradient=g, **fit).times)] for g in (True, False)),
        start,
        report,
        lambda f: [scoresde.variational_bound(SDE, f, data[:3], draws=3, seed=0).total],
    ]
    for kind in ("noise", "data"):
        for place in places:
            check(place, VALUES[kind], ONE)
        guided = lambda net, k=kind: guidance.classifier_guidance(model(net, k), density, 2.0)  # noqa: E731
        check(lambda f: [scoresde.sample_tilted(SDE, f, states(6, 2), **tilt).x], guided, ONE)


@pytest.mark.parametrize("method", inverse.methods(), ids=lambda m: m.name)
def test_inverse_problems(method: Any) -> None:
    seen = inverse.Measurement(torch.tensor([[1.0, 0.5]], dtype=torch.float64), torch.ones(1).double(), 0.1)
    parts: dict[str, Any] = {"replacement": {"predictor": solvers.DPMpp2M()}}
    parts["split_gibbs"] = {"solver": solvers.DPMppSDE(r=0.3)}
    options: dict[str, Any] = {"sweeps": 2, "hold": 0} if method.name == "split_gibbs" else {}
    for kind in ("noise", "data"):
        if method.kind == "solver":
            check(lambda f: run(f, method.cls(seen, **options), save_at=None), VALUES[kind], TWO)
            if method.name in parts:
                own = method.cls(seen, **options, **parts[method.name])
                check(lambda f, s=own: run(f, s, save_at=None), VALUES[kind], TWO)
            continue
        rule = method.cls(targets.Gaussian(torch.zeros(2).double(), 1.0)) if method.name == "exact" else method.cls()
        for solver in (solvers.DPM2M(), solvers.DDIM()):
            make = lambda net, k=kind, r=rule: inverse.ConditionedScore(VALUES[k](net), seen, r)  # noqa: E731
            check(lambda f, s=solver: run(f, s), make, TWO)


def test_annealed_langevin_and_an_sde_of_ones_own() -> None:
    chain = scoresde.discrete.NoiseScales.geometric(4, 0.1, 1.0)

    class Own(scoresde.SDE):
        def __init__(self, net: Net) -> None:
            super().__init__(t_min=0.0, t_max=1.0, prior=scoresde.NormalPrior(1.0))
            self.net = net

        def drift(self, x: Tensor, t: Any) -> Tensor:
            return self.net(x, torch.as_tensor(t))

        def diffusion(self, t: Any) -> Tensor:
            return torch.as_tensor(t) * 0 + 0.5

    for kind in ("bare", "noise"):
        make = VALUES["bare"] if kind == "bare" else lambda net: model(net, "noise", chain.sde())
        check(lambda f: run(f, solvers.AnnealedLangevin(), chain.sde(), grid=chain.grid()), make, TWO)
    for method in ("euler_maruyama", "heun_sde", "sra1", "shark"):
        given: dict[str, Any] = {"method": method, "steps": 4, "seed": 0}
        check(lambda f, g=given: [scoresde.simulate(Own(f), states(3, 2), **g).x], lambda net: net)
    for solver in (solvers.Heun(), solvers.RK4(), solvers.RK45(), solvers.SRA1()):
        check(lambda f, s=solver: run(f, s, Own(fresh)), lambda net: net, TWO)


def test_what_a_model_gives_the_user_is_the_users() -> None:
    for name in ("noise", "data", "v", "flow"):
        for prediction in ("noise", "data"):
            net = Reusing()
            score_fn = model(net, prediction)
            first = getattr(score_fn, name)(states(3, 2), 0.5)
            wanted = first.clone()
            net.spoil()
            assert torch.equal(first, wanted)


class Copies(TorchDispatchMode):
    """Counts the copies of tensors of a size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.found = size, Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("clone", "copy_", "_to_copy", "copy", "contiguous") and isinstance(out, Tensor):
            self.found[name] += out.numel() == self.size
        return out


def copies(score_fn: Any, solver: Solver, steps: int) -> tuple[int, int]:
    x = states(1, 15)  # one sample, or the batch would shrink
    tolerance = {3: 0.5, 4: 0.3, 6: 0.1}[steps]
    budget: dict[str, Any] = {"rtol": tolerance, "atol": tolerance} if solver.adaptive else {"steps": steps}
    with Copies(x.numel()) as seen:
        solution = scoresde.solve(SDE, score_fn, x, method=solver, seeds=[0], **budget)
    return seen.found.total(), solution.evaluations


LIGHT = [m for m in METHODS if not m.solver().keeps_estimates and m.kind != "backend"]


@pytest.mark.cells(9)
@pytest.mark.parametrize("method", LIGHT, ids=lambda m: m.name)
def test_methods_that_keep_nothing_copy_nothing(method: scoresde.Method) -> None:
    for kind in ("noise", "v"):
        (few, calls), (many, more) = (copies(VALUES[kind](fresh), method.solver(), n) for n in (3, 6))
        assert more >= calls >= 3 and many == few == 1, (kind, few, many)  # that of the input


@dataclass(frozen=True)
class Hoarder(solvers.DDIM):
    """Reads the estimate of the step before. It does not inherit what DDIM declares."""

    name: ClassVar[str] = "hoarder"

    def step(self, process: Any, x: Tensor, start: Any, stop: Any, state: Any) -> StepResult:
        data, direction = yield process.estimate(x, start)
        last = direction if state is None else state
        return StepResult(stop.alpha * data + 0.5 * stop.sigma * (direction + last), direction)


@dataclass(frozen=True)
class Wrong(Hoarder):
    keeps_estimates: ClassVar[bool] = False


def test_a_method_of_ones_own_keeps_what_it_does_not_disclaim() -> None:
    check(lambda f: run(f, Hoarder()), VALUES["noise"])
    with pytest.raises(AssertionError):
        check(lambda f: run(f, Wrong()), VALUES["noise"])
    contract = scoresde.testing.CHECKS["the_network_may_reuse_its_memory"]
    contract(Hoarder())
    with pytest.raises(AssertionError, match="noise"):
        contract(Wrong())
