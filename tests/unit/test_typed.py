"""Type checkers know the methods by name, and the options of each."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import scoresde
from benchmarks.signatures import PATH, text
from scoresde.solvers.registry.rows import BY_NAME

# Lines that a type checker must refuse end with this; one that it accepts is reported, as the comment is not used.
REFUSED = "  # type: ignore[call-overload]"
HEAD = """
from typing import Any, Callable

import torch
from torch import Tensor
from typing_extensions import assert_type

import scoresde
from scoresde.correctors import Corrector
from scoresde.integrate import Solution
from scoresde.interop import sample_k_diffusion
from scoresde.latents import Reconstruction, decode, encode, reconstruct
from scoresde.likelihood import Likelihood
from scoresde.solvers import Solver
from scoresde.solvers.ddim import DDIM
from scoresde.solvers.registry.lookup import methods
from scoresde._tensors import Scalar

class Wrong: ...
wrong = Wrong()
sde = scoresde.VPSDE()
x = torch.ones(2, 2)
def score(x: Tensor, t: Tensor) -> Tensor:
    return -x
"""
# Tensors are anything here, as reading torch takes mypy longer than all the rest.
CONFIG = """
[mypy]
follow_imports = silent
warn_unused_ignores = True
ignore_missing_imports = True
[mypy-torch.*,numpy.*,scipy.*]
follow_imports = skip
"""
# What must be accepted (True) and what must not (False).
CALLS: list[tuple[bool, str]] = [
    (True, 'assert_type(scoresde.solve(sde, score, x, method="adams", max_order=3, steps=None), Solution)'),
    (True, 'assert_type(scoresde.solve(sde, score, x, snr=0.1, predictor="ancestral", corrector="mala"), Solution)'),
    (True, "assert_type(scoresde.solve(sde, score, x, method=DDIM()), Solution)"),
    (True, 'assert_type(scoresde.solve(sde, score, x, method="DPM++ 2M Karras", steps=5), Solution)'),
    (True, "assert_type(scoresde.solve(sde, score, x, method=methods()[0].name, **plain), Solution)"),
    (True, 'assert_type(scoresde.solve(sde, score, x, method="ddim", **plain), Solution)'),
    (True, 'assert_type(scoresde.solve(sde, anything, x, method="adams", max_order=3), Solution)'),
    (False, 'scoresde.solve(sde, score, x, method="adams", max_order="3")'),
    (False, 'scoresde.solve(sde, score, x, method="ddmi", prediction="noise")'),
    (False, "scoresde.solve(sde, score, x, method=DDIM(), snr=0.1)"),
    (True, 'assert_type(scoresde.Stepper(sde, "dpm_3m", x, prediction="noise", steps=5).x, Tensor)'),
    (False, 'scoresde.Stepper(sde, "dpm_3m", x, max_order=3)'),
    (False, 'scoresde.Stepper(sde, "adams", x, progress=True)'),
    (True, 'assert_type(encode(sde, score, x, method="rk45", rtol=1e-3), Solution)'),
    (True, 'assert_type(decode(sde, score, x, max_order=3, temperature=0.5), Solution)'),
    (True, 'assert_type(reconstruct(sde, score, x, method="dpm_3m", steps=5), Reconstruction)'),
    (False, 'encode(sde, score, x, method="rk45", max_order=3)'),
    (True, 'assert_type(scoresde.log_likelihood(sde, score, x, max_order=3), Likelihood)'),
    (False, 'scoresde.log_likelihood(sde, score, x, method="rk45", max_order=3)'),
    (True, 'assert_type(scoresde.load("digits").sample(2, method="adams", max_order=3, seed=0), Solution)'),
    (False, 'scoresde.load("digits").sample(2, method="adams", eta=0.5)'),
    (True, 'assert_type(sample_k_diffusion(score, x, [1.0, 0.0], method="ddim_eta", eta=0.5), Tensor)'),
    (False, 'sample_k_diffusion(score, x, [1.0, 0.0], method="ddim", eta=0.5)'),
    (True, 'assert_type(scoresde.simulate(sde, x, method="heun_sde"), Solution)'),
]  # fmt: skip


def options(name: str) -> dict[str, str]:
    """The options of a method, with the types that its class declares."""
    fields = [f for f in dataclasses.fields(BY_NAME[name].load()) if f.init]
    return {f.name: str(f.type) for f in fields if f.name not in inspect.signature(scoresde.solve).parameters}


def lines() -> list[str]:
    """A module of calls, right and wrong: every option of every method, and for one method of each set of options what
    is no option, one of another method, and values of another type."""
    kinds: dict[str, str] = {}
    calls, seen = CALLS.copy(), set()
    every = {option for name in BY_NAME for option in options(name)}
    for name in BY_NAME:
        own, call = options(name), f'scoresde.solve(sde, score, x, method="{name}"'
        values = {option: kinds.setdefault(kind, f"v{len(kinds)}") for option, kind in own.items()}
        calls += [(True, f"{call})"), *((True, f"{call}, {option}={value})") for option, value in values.items())]
        if tuple(own.items()) not in seen:
            seen.add(tuple(own.items()))
            others = sorted(every - {*own, "snr", "moves"})  # which "pc" takes for its corrector
            calls += [(False, f"{call}, {option}=anything)") for option in ("no_such_option", others[0], others[-1])]
            calls += [(False, f"{call}, {option}=wrong)") for option in own]
    typed = ", ".join(f"{name}: {kind}" for kind, name in kinds.items())
    head = [*HEAD.splitlines(), f"def calls(plain: dict[str, Any], anything: Any, {typed}) -> None:"]
    return [*head, *(f"    {line}{'' if right else REFUSED}" for right, line in calls)]


def test_the_file_for_type_checkers_is_up_to_date() -> None:
    """`python -m benchmarks signatures` writes it: after a change of the methods, of the arguments of `solve` and the
    others, or of their docstrings."""
    assert PATH.read_text(encoding="utf-8") == text()


@pytest.mark.slow
def test_a_type_checker_accepts_every_option_of_every_method_and_no_other(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    wrong = 'scoresde.solve(sde, score, x, method="ddim", snr=0.1)'
    module = tmp_path / "calls.py"
    module.write_text("\n".join([*lines(), f"    {wrong}", ""]))
    config = tmp_path / "mypy.ini"
    config.write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", tmp_path / "cache", module],
        capture_output=True,
        text=True,
        cwd=Path(scoresde.__file__).parent.parent,
    )
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, done.stdout[:3000] + done.stderr
    assert f':{len(lines()) + 1}: error: No overload variant of "solve" matches' in errors[0]
