"""Contexts as networks of other libraries take them: nests of tensors, None, names and numbers, followed with their
samples wherever these go. What is passed in a nest gives bit for bit what the same tensors give as arguments."""

from __future__ import annotations

import functools
import itertools
import re
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde
from scoresde import ScoreModel, guidance, inverse, losses, solve, targets, testing
from scoresde.core.errors import InvalidArgumentError, ScoreFnError
from tests.parameters import ways

SDE = scoresde.VPSDE()
F64 = torch.float64
ROWS = 6
Pair = namedtuple("Pair", ["gain", "name"])


def states(rows: int = ROWS) -> Tensor:
    return torch.randn(rows, 2, generator=torch.Generator().manual_seed(3), dtype=F64)


EMB = torch.linspace(-1.0, 1.0, 2 * ROWS, dtype=F64).reshape(ROWS, 2)
GAIN = torch.linspace(0.5, 8.0, ROWS, dtype=F64)
TABLE = torch.tensor([[0.3, -0.2]], dtype=F64)  # one for all samples


def nest(rows: Any = slice(None)) -> dict[str, Any]:
    return {"more": {"emb": EMB[rows], "parts": [Pair(GAIN[rows], "a name"), None, 0.25, True], "table": (TABLE,)}}


def flat(rows: Any = slice(None)) -> dict[str, Tensor]:
    return {"emb": EMB[rows], "gain": GAIN[rows], "table": TABLE.expand(len(EMB[rows]), 2)}


def formula(x: Tensor, t: Tensor, emb: Tensor, gain: Tensor, table: Tensor) -> Tensor:
    """Sums and products only: the same for a sample in any batch."""
    assert len(x) == len(emb) == len(gain) == len(table)
    u = t[:, None]
    return u * (2 - u) * x * (1 + 0.02 * gain[:, None]) + 0.1 * (1 - u) * emb + 0.1 * table


class Nested:
    """A network with one nest; it counts its calls and notes how many samples it sees."""

    rowwise = True

    def __init__(self) -> None:
        self.widths: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, more: Any) -> Tensor:
        self.widths.append(len(x))
        pair, nothing, scale, flag = more["parts"]
        assert (pair.name, nothing, scale, flag) == ("a name", None, 0.25, True)
        return formula(x, t, more["emb"], pair.gain, more["table"][0])


class Flat:
    rowwise = True

    def __init__(self) -> None:
        self.widths: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, emb: Tensor, gain: Tensor, table: Tensor) -> Tensor:
        self.widths.append(len(x))
        return formula(x, t, emb, gain, table)


def model(net: Callable[..., Tensor], **options: Any) -> ScoreModel:
    return ScoreModel(net, SDE, "noise", **options)


def score(net: Any) -> Any:
    """A bare score that is minus what a network returns."""

    class Score:
        rowwise = True

        def __call__(self, x: Tensor, t: Tensor, **context: Any) -> Tensor:
            return -net(x, t, **context)

    return Score()


ADAPTIVE = {m.name for m in scoresde.methods() if m.adaptive}
LOOSE: dict[str, Any] = {"rtol": 0.03, "atol": 0.03}


def few(method: str) -> dict[str, Any]:
    return {"method": method} | (LOOSE if method in ADAPTIVE else {"steps": 4})


@pytest.mark.parametrize("make", [score, model], ids=["bare", "model"])
def test_a_nest_gives_what_its_tensors_give(make: Callable[..., Any]) -> None:
    """With every way of stepping, and where finished samples leave the batch."""
    for method in (*ways(), "rk45"):
        nested, plain = Nested(), Flat()
        options: dict[str, Any] = {"seeds": range(ROWS), **few(method)}
        got = solve(SDE, make(nested), states(), context=nest(), **options)
        expected = solve(SDE, make(plain), states(), context=flat(), **options)
        assert torch.equal(got.x, expected.x) and torch.equal(got.nfe, expected.nfe), method
        assert nested.widths == plain.widths and len(nested.widths) > 1, method


@pytest.mark.parametrize("method", ["rk45", "adams"])
def test_samples_that_leave_take_their_context_along(method: str) -> None:
    net, given = Nested(), {"method": method, "rtol": 1e-3, "atol": 1e-3}
    whole = solve(SDE, model(net), states(), context=nest(), **given)
    assert len(set(net.widths)) > 1
    for i in (0, 2, 5):
        rows = slice(i, i + 1)
        alone = solve(SDE, model(net), states()[rows], context=nest(rows), **given)
        assert torch.equal(alone.x, whole.x[rows]) and torch.equal(alone.nfe, whole.nfe[rows])


@pytest.mark.parametrize("method", ["ddim", "pc", "rk45", "scipy:RK45"])
def test_what_is_bound_is_what_is_passed(method: str) -> None:
    """One row for all keeps the batch divisible; rows of samples do not."""
    options: dict[str, Any] = {"seeds": range(ROWS), **few(method)}
    passed = solve(SDE, model(Nested()), states(), context=nest(), **options).x
    bound = model(Nested(), context=nest())
    assert not bound.rowwise and torch.equal(solve(SDE, bound, states(), **options).x, passed)
    one, expanded = model(Nested(), context=nest([2])), model(Flat(), context=flat([2] * ROWS))
    assert one.rowwise and not expanded.rowwise
    assert torch.equal(solve(SDE, one, states(), **options).x, solve(SDE, expanded, states(), **options).x)
    pairs = ((Nested(), nest([2])), (Flat(), flat([2] * ROWS)))
    one, expanded = (guidance.conditional(model(net), **given) for net, given in pairs)
    assert one.rowwise and not expanded.rowwise
    assert torch.equal(solve(SDE, one, states(), **options).x, solve(SDE, expanded, states(), **options).x)


def test_one_row_for_all_is_expanded_also_where_it_is_an_argument() -> None:
    seen: list[tuple[int, ...]] = []

    def net(x: Tensor, t: Tensor, table: Tensor) -> Tensor:
        seen.append(tuple(table.shape))
        assert len(x) == len(table)
        return x * table

    for score_fn, options in ((model(net, context={"table": TABLE}), {}), (model(net), {"context": {"table": TABLE}})):
        for rows in (1, 4, 0):
            solve(SDE, score_fn, states(rows), method="rk45", **options)
    assert {(1, 2), (4, 2)} <= set(seen)
    assert model(net, context={"table": TABLE})(states(3), 0.5).shape == (3, 2)


def test_nothing_and_names_are_passed_as_they_are() -> None:
    seen: list[Any] = []

    def net(x: Tensor, t: Tensor, mask: Any = 5, name: Any = 5, more: Any = 5) -> Tensor:
        seen.append((mask, name, more))
        return x

    context = {"mask": None, "name": "a name", "more": {"size": (8, 8), "scale": 0.5, "mask": None}}
    for score_fn in (score(net), model(net)):
        for method in ("ddim", "rk45"):
            solve(SDE, score_fn, states(), method=method, context=context, **({"steps": 2} if method == "ddim" else {}))
    solve(SDE, model(net, context=context), states(), method="ddim", steps=2)
    assert all(got == tuple(context.values()) for got in seen)


def test_a_gradient_goes_to_a_tensor_in_a_nest() -> None:
    results = []
    for net, context in ((Nested(), nest()), (Flat(), flat())):
        leaf = EMB.clone().requires_grad_()
        context.get("more", context)["emb"] = leaf
        given: dict[str, Any] = {"context": context, "method": "ddim", "steps": 4, "differentiable": True}
        solve(SDE, model(net), states(), **given).x.sum().backward()
        assert leaf.grad is not None and bool(leaf.grad.abs().sum() > 0)
        results.append(leaf.grad)
    assert torch.equal(*results)


@pytest.mark.parametrize("rows", [1, ROWS, 30])
@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_a_likelihood_follows_a_nest(rows: int, divergence: str) -> None:
    """Also through the check of gradients, which asks a large batch at three levels at once."""
    which = [i % ROWS for i in range(rows)]
    x, options = states(rows), {"divergence": divergence, "seed": 0, **LOOSE}
    net = Nested()
    got = scoresde.log_likelihood(SDE, model(net), x, context=nest(which), **options)
    expected = scoresde.log_likelihood(SDE, model(Flat()), x, context=flat(which), **options)
    bound = scoresde.log_likelihood(SDE, model(Nested(), context=nest(which)), x, **options)
    assert torch.equal(got.log_prob, expected.log_prob)
    assert torch.allclose(bound.log_prob, got.log_prob, rtol=1e-9)
    assert rows != 30 or 24 in net.widths


def test_bounds_checks_and_fits_follow_a_nest() -> None:
    which = [i % ROWS for i in range(12)]
    x, gaussian = states(12), targets.Gaussian(torch.zeros(2, dtype=F64), 1.0)
    fit: dict[str, Any] = {"method": "ddim", "iterations": 1, "starts": "quadratic", "reference": 0.5 * x}
    places: dict[str, Callable[..., Any]] = {
        "bound": lambda f, c: scoresde.variational_bound(SDE, f, x, seed=0, draws=2, context=c).total.tolist(),
        "profile": lambda f, c: scoresde.density_profile(SDE, f, x, points=3, context=c, **LOOSE).log_det.tolist(),
        "score": lambda f, c: scoresde.check_score(SDE, f, x, levels=2, context=c).error,
        "contract": lambda f, c: testing.check_score_fn(SDE, f, x, context=c),
        "grid": lambda f, c: scoresde.fit_grid(SDE, f, 3, x=x, context=c, **fit).times,
        "start": lambda f, c: scoresde.fit_start(SDE, f, gaussian, x=x, levels=3, context=c).bound,
    }
    for name, place in places.items():
        assert place(model(Nested()), nest(which)) == place(model(Flat()), flat(which)), name


def null() -> dict[str, Any]:
    """A context without a condition, one row for all samples."""
    parts = [Pair(torch.ones(1, dtype=F64), "a name"), None, 0.25, True]
    return {"more": {"emb": 0 * TABLE, "parts": parts, "table": (TABLE,)}}


def flat_null() -> dict[str, Tensor]:
    return {"emb": 0 * TABLE, "gain": torch.ones(1, dtype=F64), "table": TABLE}


@pytest.mark.parametrize("given", ["to the solve", "to conditional", "to the model"])
def test_guidance_without_a_classifier_is_one_call(given: str) -> None:
    for method in ("ddim", "pc", "rk45"):
        options: dict[str, Any] = {"seeds": range(ROWS), **few(method)}
        results = []
        for net, context, nothing in ((Nested(), nest(), null()), (Flat(), flat(), flat_null())):
            c = plain = model(net)
            u = guidance.conditional(plain, **nothing) if given == "to conditional" else model(net, context=nothing)
            if given == "to conditional":
                c = guidance.conditional(plain, **context)
            elif given == "to the model":
                c = model(net, context=context)
            guided = guidance.classifier_free(c, u, 2.0)
            beside = {"context": context} if given == "to the solve" else {}
            solution = solve(SDE, guided, states(), **options, **beside)
            assert solution.evaluations == len(net.widths) and all(n % 2 == 0 for n in net.widths)
            assert guided.rowwise == (given == "to the solve")
            results.append(solution.x)
        assert torch.equal(*results)
    x, half = states(), torch.full((ROWS,), 0.5, dtype=F64)
    c = formula(x, half, **flat())
    u = formula(x, half, **{k: v.expand(ROWS, *v.shape[1:]) for k, v in flat_null().items()})
    noise = guidance.classifier_free(model(Nested()), model(Nested(), context=null()), 2.0).noise(x, 0.5, **nest())
    assert torch.allclose(noise, u + 2 * (c - u), rtol=1e-12)


def test_contexts_of_other_forms_are_asked_apart() -> None:
    net = Nested()
    other = null()
    other["more"]["parts"] = Pair(torch.ones(1, dtype=F64), "a name"), None, 0.25, True  # a tuple, no list
    both = guidance.product(model(net, context=null()), model(net, context=other), base=model(net, context=null()))
    both(states(), 0.5)
    assert sorted(net.widths) == [ROWS, 2 * ROWS]
    net.widths.clear()
    other = null()
    other["more"]["emb"] = other["more"]["emb"].float()
    guidance.classifier_free(model(net, context=null()), model(net, context=other), 2.0)(states(), 0.5)
    assert net.widths == [ROWS, ROWS]


def test_a_context_in_a_nest_reaches_what_guides() -> None:
    def log_prob(x: Tensor, t: Tensor, more: Any) -> Tensor:
        return -(x * more["emb"] - 0.5).square().sum(1)

    def seen(data: Tensor, more: Any) -> Tensor:
        return -0.01 * (data * more["emb"] - 0.5).square().sum(1)

    for guide, function in ((guidance.classifier_guidance, log_prob), (guidance.likelihood_guidance, seen)):
        for method in ("ddim", "rk45"):
            with torch.inference_mode():  # whose tensors autograd may not keep
                inside = {"more": {**nest()["more"], "emb": EMB.clone()}}
                got = solve(SDE, guide(model(Nested()), function), states(), context=inside, **few(method)).x
            outside = solve(SDE, guide(model(Nested()), function), states(), context=nest(), **few(method)).x
            assert torch.allclose(got, outside, rtol=1e-10)


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("jacobians", [True, False])
def test_a_tall_posterior_follows_a_nest(jacobians: bool, chunk: int | None) -> None:
    y = torch.tensor([[0.1, 0.2], [0.3, -0.1], [0.0, 0.4]], dtype=F64)
    options: dict[str, Any] = {"chunk": chunk} | ({} if jacobians else {"covariances": torch.full_like(y, 0.5)})
    prior = targets.Gaussian(torch.zeros(2, dtype=F64), 1.0)

    def of(formula_net: Any) -> Any:
        def net(x: Tensor, t: Tensor, y: Tensor, **context: Any) -> Tensor:
            return 0.3 * formula_net(x, t, **context) + 0.2 * (x - y)

        return net

    def tall(score_fn: Any) -> Any:
        return guidance.tall(score_fn, prior, {"y": y}, sde=SDE, **options)

    def run(score_fn: Any, **beside: Any) -> Tensor:
        return solve(SDE, score_fn, states(), method="ddim", steps=3, **beside).x

    expected = run(tall(model(of(Flat()))), context=flat())
    assert torch.equal(run(tall(model(of(Nested()))), context=nest()), expected)
    assert torch.equal(run(tall(model(of(Nested()), context=nest()))), expected)
    assert torch.equal(run(tall(guidance.conditional(model(of(Nested())), **nest()))), expected)
    bare = run(tall(guidance.conditional(score(of(Nested())), **nest())))
    assert torch.equal(bare, run(tall(score(of(Flat()))), context=flat()))


@pytest.mark.filterwarnings("ignore:.* do not fit the measurement")  # the network is no denoiser
def test_inverse_problems_follow_a_nest() -> None:
    seen = torch.tensor([[1.0, 0.0]], dtype=F64), torch.tensor([0.9], dtype=F64), 0.1
    for method in ("dps", "mmps", "ddrm", "twisted_smc"):
        which = [2] * ROWS if method == "twisted_smc" else list(range(ROWS))  # whose particles share it
        given: dict[str, Any] = {"method": method, "x": states(), "steps": 4, "seed": 0}
        got, expected = (
            inverse.sample_posterior(SDE, model(net), *seen, context=context, **given).x
            for net, context in ((Nested(), nest(which)), (Flat(), flat(which)))
        )
        assert torch.equal(got, expected), method


def test_weighted_particles_share_a_nest() -> None:
    def log_prob(x: Tensor, t: Tensor) -> Tensor:
        return -x.square().sum(1)

    def run(net: Any, context: dict[str, Any]) -> Tensor:
        guided = guidance.classifier_guidance(model(net), log_prob, 2.0)
        return scoresde.sample_tilted(SDE, guided, states(), particles=3, steps=5, seed=0, context=context).x

    sets = [0, 0, 0, 4, 4, 4]
    assert torch.equal(run(Nested(), nest(sets)), run(Flat(), flat(sets)))
    with pytest.raises(InvalidArgumentError, match=r"\['emb'\]` must be the same for all 3 particles"):
        run(Nested(), nest())


ROWS_OF_3 = torch.ones(3, 7)
# What is refused, and the message; the first three also where they are bound.
REFUSED: list[tuple[Any, str]] = [
    ({"a": {"emb": ROWS_OF_3}}, "`context['a']['emb']` has 3 rows; the batch has 6. It must be"),
    ({"a": [torch.ones(6), (ROWS_OF_3,)]}, "`context['a'][1][0]` has 3 rows; the batch has 6."),
    ({"a": Pair(ROWS_OF_3, "b")}, "`context['a'].gain` has 3 rows; the batch has 6."),
    ({"a": ROWS_OF_3}, "`context['a']` has 3 rows; the batch has 6."),
    ({"a": {"emb": torch.ones(6).numpy()}}, "`context['a']['emb']` must be a tensor (6, …) with one"),
    ({"a": 3}, "`context['a']` must be a tensor (6, …) with one entry per sample, or (1, …) with one for"),
    ({"a": torch.tensor(3)}, "`context['a']` must be a tensor (6, …)"),
    ({"a": [1, 2, 3, 4, 5, 6]}, "`context['a']` must be a tensor (6, …)"),
    ({"a": ["b", "c"]}, "`context['a']` must be a tensor (6, …)"),
]


def test_what_cannot_be_followed_is_refused_by_its_place() -> None:
    """Before the network is called."""

    def net(x: Tensor, t: Tensor, a: Any) -> Tensor:
        raise AssertionError("called")

    def refused(call: Callable[[], Any], message: str) -> None:
        with pytest.raises(InvalidArgumentError, match=re.escape(message)):
            call()

    for i, (context, message) in enumerate(REFUSED):
        free = [(make(net), {"context": context}) for make in (score, model)]
        for score_fn, given in free:
            refused(lambda f=score_fn, g=given: scoresde.log_likelihood(SDE, f, states(), **g), message)
        bound = [model(net, context=context), guidance.conditional(model(net), **context)] if i < 3 else []
        for one in bound:
            assert not one.rowwise
            refused(lambda f=one: f(states(), 0.5), message)
        guided = [guidance.classifier_free(one, model(net, context={"a": None}), 2.0) for one in bound]
        for method in ("ddim", "pc", "rk45"):
            for score_fn, given in (*free, *((f, {}) for f in (*bound, *guided))):
                refused(lambda f=score_fn, m=method, g=given: solve(SDE, f, states(), method=m, **g), message)


def test_a_bound_argument_may_be_a_table_that_all_samples_share() -> None:
    """As the places of tokens are; labels of another batch are refused."""
    table = torch.ones(3, 7)

    def net(x: Tensor, t: Tensor, label: Tensor, places: Tensor) -> Tensor:
        assert places is table and len(label) == len(x)
        seen.append(len(x))
        return x * label[:, None]

    seen: list[int] = []
    c, u = (model(net, context={"places": table, "label": label}) for label in (2, torch.ones(1, dtype=torch.int64)))
    prior = targets.Gaussian(torch.zeros(2, dtype=F64), 1.0)
    tall = guidance.tall(c, prior, {"label": torch.ones(4, dtype=torch.int64)}, covariances=torch.full((4, 2), 0.5))
    for score_fn in (c, guidance.classifier_free(c, u, 2.0), tall):
        assert not score_fn.rowwise
        solve(SDE, score_fn, states(), method="ddim", steps=1)
    assert seen == [ROWS, 2 * ROWS, 4 * ROWS]
    with pytest.raises(InvalidArgumentError, match=r"`context\['label'\]` has 3 rows; the batch has 6"):
        solve(SDE, guidance.conditional(u, label=torch.ones(3)), states(), method="ddim", steps=1)


def test_a_loss_refuses_a_nest_of_another_batch() -> None:
    with pytest.raises(InvalidArgumentError, match=r"`more\['emb'\]` must have one entry per sample, \(6, …\)"):
        losses.denoising(model(Nested()), states(), more={**nest()["more"], "emb": EMB[:2]})
    good = {**nest()["more"], "table": (TABLE.expand(ROWS, 2),)}
    drawn = (torch.Generator().manual_seed(0) for _ in range(2))
    assert torch.equal(
        losses.denoising(model(Nested()), states(), next(drawn), more=good),
        losses.denoising(model(Flat()), states(), next(drawn), **flat()),
    )


def test_writes_to_a_tensor_in_a_nest_are_seen() -> None:
    def net(x: Tensor, t: Tensor, more: Any) -> Tensor:
        more["parts"][1].mul_(0.5)
        return x

    context = {"more": {"emb": EMB, "parts": [None, GAIN.clone()]}}
    for make in (score, model, lambda net: guidance.temperature(model(net), 0.5)):
        for method in ("ddim", "pc", "rk45"):
            with pytest.raises(ScoreFnError, match=r"modified `context\['more'\]\['parts'\]\[1\]` in place"):
                solve(SDE, make(net), states(), method=method, context=context)
        with pytest.raises(ScoreFnError, match=r"changed `context\['more'\]\['parts'\]\[1\]` in place|modified"):
            testing.check_score_fn(SDE, make(net), states(), context=context)


def test_a_label_that_a_network_has_no_row_for_is_explained() -> None:
    table = nn.Embedding(10, 2)

    def net(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return x + table(label)

    def rows(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return x + table.weight[label]

    context, x = {"label": torch.tensor([3, 12])}, torch.zeros(2, 2)
    for function in (net, rows):
        with pytest.raises(ScoreFnError, match=r"A table has no row for an index .*count from 0"):
            solve(SDE, model(function), x, method="ddim", steps=1, context=context)
    with pytest.raises(ScoreFnError, match="A table has no row"):
        scoresde.log_likelihood(SDE, model(net), x, check=False, seed=0, context=context)

    def callback(info: Any) -> None:
        [][0]

    with pytest.raises(IndexError, match="list index"):
        solve(SDE, model(lambda x, t: x), x, method="ddim", steps=1, callback=callback)


HALF = {
    "linear": (nn.Linear(2, 2), (2,)),
    "convolution without bias": (nn.Conv2d(1, 1, 3, padding=1, bias=False), (1, 4, 4)),
    "normalisation": (nn.GroupNorm(1, 1), (1, 4, 4)),
}


@pytest.mark.parametrize(
    ("kind", "dtype"), [(kind, torch.bfloat16) for kind in HALF] + [("linear", torch.float16)], ids=str
)
def test_a_network_of_another_dtype_in_a_function_is_explained(kind: str, dtype: torch.dtype) -> None:
    layer, event = HALF[kind]
    x = torch.randn(2, *event, generator=torch.Generator().manual_seed(0))

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer.to(dtype)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.layer(x)

    net = Module()

    def hidden(x: Tensor, t: Tensor) -> Tensor:
        return net(x, t)

    def inside(x: Tensor, t: Tensor) -> Tensor:
        return net(x.to(dtype), t).float()

    runs: list[Callable[[Any], Any]] = [
        lambda f: solve(SDE, f, x, method="ddim", steps=1),
        lambda f: solve(SDE, f, x, method="rk45", rtol=0.1, atol=0.1),
        lambda f: scoresde.log_likelihood(SDE, f, x, check=False, seed=0),
    ]
    for run, score_fn in itertools.product(runs, (hidden, model(hidden))):
        with pytest.raises(ScoreFnError, match=r"another dtype.*ScoreModel\(net, sde, …\).*cast inside"):
            run(score_fn)
    for score_fn in (model(inside), model(net)):  # as the error advises
        assert runs[0](score_fn).x.shape == x.shape


def test_other_errors_of_a_network_are_its_own() -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        raise RuntimeError("no such thing")

    with pytest.raises(RuntimeError, match=r"^no such thing$"):
        solve(SDE, net, states(), method="ddim", steps=1)


def test_an_entry_that_is_missing_or_unknown_is_named_with_what_is_taken() -> None:
    """Before anything is evaluated, for networks and callables, bare and inside guidance."""
    calls: list[int] = []

    def net(x: Tensor, t: Tensor, label: Tensor, size: Tensor | None = None) -> Tensor:
        calls.append(len(x))
        return -x + label.to(x)[:, None]

    def seen(data: Tensor, y: Tensor) -> Tensor:
        return -(data - y[:, None]).square().sum(1)

    labelled, bound = ScoreModel(net, SDE, "noise"), ScoreModel(net, SDE, "noise", context={"label": 3})
    free = guidance.classifier_free(labelled, bound, "strength")
    observed = guidance.likelihood_guidance(bound, seen)
    lacking: list[tuple[Any, dict[str, Tensor] | None, str]] = [
        (net, None, "lacks 'label'"),
        (labelled, {"size": GAIN}, "lacks 'label'"),
        (observed, None, "lacks 'y'"),
        (labelled, {"lable": GAIN}, "got 'lable'; it takes 'label', 'size'"),
        (free, {"guidance": GAIN}, "it takes 'label', 'size', 'strength'"),
        (guidance.conditional(labelled, label=1), {"label": GAIN}, "it takes 'size'"),
        (lambda x, t: -x, {"label": GAIN}, "got 'label'[.]$"),
    ]
    for score_fn, context, text in lacking:
        with pytest.raises(InvalidArgumentError, match=text):
            solve(SDE, score_fn, states(), method="ddim", steps=1, context=context)
    with pytest.raises(InvalidArgumentError, match="lacks 'label'"):
        scoresde.log_likelihood(SDE, labelled, states())
    assert not calls


def test_what_may_be_given_elsewhere_is_not_asked_for() -> None:
    """By a decorator, a hook, functools.partial, a bound label, or an argument that cannot be seen."""

    def net(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return -x + label.to(x)[:, None]

    @functools.wraps(net)
    def decorated(x: Tensor, t: Tensor) -> Tensor:
        return net(x, t, torch.zeros(len(x)))

    class Hooked(nn.Module):
        def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
            return net(x, t, label)

    hooked = Hooked()
    hooked.register_forward_pre_hook(lambda module, given: (*given, torch.zeros(len(given[0]))))
    score_fns: list[Any] = [
        decorated,
        hooked,
        functools.partial(net, label=torch.zeros(ROWS)),
        guidance.classifier_free(lambda x, t: -x, net, 1.0),
        guidance.classifier_guidance(lambda x, t: -x, lambda x, t, label: x.sum(1), 0.0),
        guidance.conditional(net, label=0.0),
        lambda *given: -given[0],
    ]
    for score_fn in score_fns:
        x = solve(SDE, score_fn, states(), method="ddim", steps=1).x
        assert torch.allclose(x, solve(SDE, lambda x, t: -x, states(), method="ddim", steps=1).x, rtol=1e-12)
