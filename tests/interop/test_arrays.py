"""Networks that are functions of arrays give what the same network gives in torch; for those of JAX and ONNX see
`test_pages.py`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import inverse
from scoresde.interop import from_arrays
from tests.refusals import refuses

SDE = scoresde.VPSDE()
METHODS = ("dpm_3m", "rk45", "adams", "pc", "euler_maruyama", "dpmpp_2m_sde")


def state(dtype: torch.dtype = torch.float64, batch: int = 5) -> Tensor:
    return torch.randn(batch, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def in_torch(x: Tensor, t: Tensor, shift: Tensor | float = 0.0) -> Tensor:
    shift = torch.as_tensor(shift).reshape(-1, 1)
    return -x + 0.1 * x / (1 + x * x) * t[:, None] + shift


def in_numpy(x: Any, t: Any, shift: Any = 0.0) -> Any:
    assert isinstance(x, np.ndarray) and isinstance(t, np.ndarray)
    return -x + 0.1 * x / (1 + x * x) * t[:, None] + np.reshape(shift, (-1, 1)).astype(x.dtype)


def pulled(x: Any, t: Any, v: Any) -> Any:
    """v times the derivative, which is diagonal."""
    return v * (-1 + 0.1 * (1 - x * x) / (1 + x * x) ** 2 * t[:, None])


def solved(score_fn: Callable[..., Tensor], x: Tensor, method: str, **options: Any) -> Tensor:
    steps = {} if method in ("rk45", "adams") else {"steps": 8}
    return scoresde.solve(SDE, score_fn, x, method=method, seed=0, **steps, **options).x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_in_numpy_gives_what_it_gives_in_torch(dtype: torch.dtype) -> None:
    """The same operations on the same numbers, in any method, alone and as a model."""
    x = state(dtype)
    for method in ("dpm_3m", "rk45", "pc"):
        for wrap in (lambda f: f, lambda f: scoresde.ScoreModel(f, SDE, "score")):
            got, wanted = solved(wrap(from_arrays(in_numpy)), x, method), solved(wrap(in_torch), x, method)
            assert got.dtype == dtype and torch.allclose(got, wanted, rtol=1e-5, atol=1e-5), method


def test_the_context_is_arrays_too() -> None:
    score_fn, shift = from_arrays(in_numpy), torch.linspace(0, 1, 5)
    got = solved(score_fn, state(), "dpm_3m", context={"shift": shift})
    assert torch.allclose(got, solved(in_torch, state(), "dpm_3m", context={"shift": shift}), rtol=1e-6, atol=1e-6)
    with pytest.raises(scoresde.InvalidArgumentError, match="`context` must have names"):
        solved(score_fn, state(), "dpm_3m", context={"label": shift})


def test_nothing_is_copied() -> None:
    kept: list[Any] = []

    def net(x: Any, t: Any) -> Any:
        kept.append((x.__array_interface__["data"][0], out := np.negative(x)))
        return out

    x = state()
    out = from_arrays(net)(x, torch.ones(5))
    assert kept[0][0] == x.data_ptr() and kept[0][1].__array_interface__["data"][0] == out.data_ptr()


def test_an_array_that_torch_cannot_share_is_copied() -> None:
    x, t = state(), torch.ones(5)
    forms: dict[str, Callable[[Any], Any]] = {
        "negative strides": lambda a: a[::-1][::-1],
        "reversed": lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1],
        "read-only": lambda a: np.broadcast_to(a, a.shape),
        "its input": lambda a: a,
        "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
        "Fortran order": np.asfortranarray,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, form in forms.items():
            assert torch.equal(from_arrays(lambda x, t, form=form: form(x))(x, t), x), name
        assert torch.equal(from_arrays(lambda x, t: x + 0 * t[:, None])(x.T.contiguous().T, t.expand(5)), x)


def test_a_network_that_keeps_its_output_keeps_it() -> None:
    """Its memory is its own: a solve reads it before the next call, and never writes to it."""
    memory = np.zeros((5, 3))
    last = np.zeros((5, 3))

    def net(x: Any, t: Any) -> Any:
        assert (memory == last).all()
        last[:] = in_numpy(x, t)
        memory[:] = last
        return memory

    for method in (*METHODS, "rho_heun", "unipc2", "ddim"):
        got = solved(from_arrays(net), state(), method)
        assert torch.allclose(got, solved(in_torch, state(), method)), method
        assert (memory == last).all()


def test_a_network_that_writes_to_its_input_is_stopped() -> None:
    def net(x: Any, t: Any) -> Any:
        x *= -1
        return x

    with pytest.raises(ValueError, match="read-only"):
        solved(from_arrays(net), state(), "ddim")


def test_gradients_are_those_that_are_given() -> None:
    x = state(batch=2)
    for options in ({"divergence": "exact"}, {"divergence": "hutchinson", "probes": 2, "seed": 0}):
        options |= {"check": False, "rtol": 1e-3, "atol": 1e-3}
        got = scoresde.log_likelihood(SDE, from_arrays(in_numpy, vjp=pulled), x, **options).log_prob
        assert torch.allclose(got, scoresde.log_likelihood(SDE, in_torch, x, **options).log_prob, atol=1e-6)


MISSING = r"function of arrays, which has no gradient of its own; pass from_arrays\(net, library, vjp="


def test_a_likelihood_without_a_gradient_says_so() -> None:
    for score_fn in (from_arrays(in_numpy), scoresde.ScoreModel(from_arrays(in_numpy), SDE, "score")):
        for check in (True, False):
            for divergence in ("exact", "hutchinson"):
                with pytest.raises(scoresde.ScoreFnError, match=MISSING):
                    scoresde.log_likelihood(SDE, score_fn, state(), divergence=divergence, check=check)


def test_guidance_and_inverse_problems_without_a_gradient_say_so() -> None:
    score_fn = scoresde.ScoreModel(from_arrays(in_numpy), SDE, "score")
    seen = torch.eye(3, dtype=torch.float64)[:1], torch.ones(1, dtype=torch.float64), 0.1
    for method in ("mmps", "pigdm", "dps"):
        with pytest.raises(scoresde.ScoreFnError, match=MISSING):
            inverse.sample_posterior(SDE, score_fn, *seen, method=method, x=state(), steps=3, seed=0)
    x = state().requires_grad_()
    end = scoresde.solve(SDE, score_fn, x, method="ddim", steps=3, differentiable=True).x
    with pytest.raises(scoresde.ScoreFnError, match=MISSING):
        end.sum().backward()


def test_what_is_not_an_array_is_refused() -> None:
    E, T = scoresde.ScoreFnError, scoresde.InvalidTypeError
    outputs: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
        *((lambda x, out=out: out, E, "must return an array like x, got") for out in (None, [1.0], "x")),
        (lambda x: x.astype(object), E, "must return an array like x, got ndarray"),
        (lambda x: x[0], E, r"shape \(5, 3\), like x, got \(3,\)"),
        (lambda x: x.astype(np.int64), E, r"like x, got torch\.int64"),
        (lambda x: x * np.nan, scoresde.NonFiniteError, ""),
    ]
    refuses(
        (lambda net=net: solved(from_arrays(lambda x, t: net(x)), state(), "ddim"), error, said)
        for net, error, said in outputs
    )
    refuses(
        [
            (lambda: from_arrays(in_numpy)(state(torch.bfloat16), torch.ones(5)), E, r"cannot read a torch\.bfloat16"),
            (lambda: from_arrays(3), T, ""),  # type: ignore[arg-type]
            (lambda: from_arrays(in_numpy, "numpy"), T, ""),
            (lambda: from_arrays(in_numpy, vjp=3), T, "`vjp` must be callable"),  # type: ignore[arg-type]
        ]
    )


def test_arrays_in_the_place_of_tensors_are_answered_with_what_to_write() -> None:
    a, x = np.ones((2, 3), np.float32), torch.ones(2, 3)
    model = scoresde.ScoreModel(lambda x, t: x, SDE, "noise")
    label = {"label": np.ones(2)}
    calls: dict[str, Callable[[], object]] = {
        "x": lambda: scoresde.solve(SDE, in_torch, a, method="ddim", steps=3),  # type: ignore[arg-type]
        "x0": lambda: scoresde.simulate(SDE, a),  # type: ignore[arg-type]
        "y": lambda: inverse.condition(model, torch.eye(3), np.ones(3), 0.1),  # type: ignore[arg-type]
        "values": lambda: scoresde.training.Arrays(a),  # type: ignore[arg-type]
        r"context\['label'\]": lambda: scoresde.solve(SDE, lambda x, t, label: x, x, method="pc", context=label),
    }
    calls["x "] = lambda: scoresde.log_likelihood(SDE, in_torch, a)  # type: ignore[arg-type]
    calls["x  "] = lambda: scoresde.Stepper(SDE, "ddim", a, steps=3)  # type: ignore[arg-type]
    for name, call in calls.items():
        with pytest.raises(scoresde.ScoreSDEError, match=rf"try torch\.from_numpy\({name.strip()}\)"):
            call()
    with pytest.raises(scoresde.ScoreFnError, match=r"got ndarray \(scoresde\.interop\.from_arrays takes"):
        scoresde.solve(SDE, lambda x, t: -x.numpy(), x, method="ddim", steps=3)
    stepper = scoresde.Stepper(SDE, "ddim", x, steps=3)
    stepper.ask()
    with pytest.raises(scoresde.InvalidTypeError, match=r"must be a tensor, got ndarray; try torch\.from_numpy"):
        stepper.tell(a)  # type: ignore[arg-type]
