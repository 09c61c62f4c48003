"""Arguments are checked as their annotations declare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import numpy as np
import pytest
import torch

from scoresde import VPSDE
from scoresde.core.errors import InvalidArgumentError, InvalidTypeError
from scoresde.core.sdes.base import SDE
from scoresde.core.support.declared import Count, Device, Interval, Kind, Positive, State, called, checked, number


class Shape(Protocol):
    size: int


@checked
def function(
    sde: SDE,
    n: Count | None = None,
    p: Annotated[float, number(0.0, 1.0)] = 0.5,
    *rest: object,
    how: Literal["up", "down"] = "up",
    flag: bool = True,
    context: Mapping[str, object] | None = None,
    generator: torch.Generator | None = None,
    device: Device | None = None,
    interval: Interval | None = None,
    x: State | None = None,
    call: Annotated[object, called("call(x)")] = print,
    shape: Shape | None = None,
    **others: object,
) -> tuple[object, ...]:
    return n, device, interval, rest, others


@checked
@dataclass(frozen=True)
class Base:
    scale: Positive = 1.0


@checked
@dataclass(frozen=True)
class Derived(Base):
    n: Count = 1
    tail: Annotated[int, Kind(lambda name, value: value + 1)] = 0


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"sde": 1}, InvalidTypeError, "`sde` must be a"),
        ({"n": 0}, InvalidArgumentError, "`n` must be at least 1, got 0"),
        ({"n": 1.5}, InvalidTypeError, "`n` must be an integer"),
        ({"p": 2.0}, InvalidArgumentError, r"`p` must be in \[0, 1\]"),
        ({"p": None}, InvalidTypeError, "`p` must be a number"),
        ({"how": "left"}, InvalidArgumentError, "`how`: unknown name 'left'"),
        ({"flag": 1}, InvalidTypeError, "`flag` must be True or False"),
        ({"context": [1]}, InvalidTypeError, "`context` must be a mapping"),
        ({"generator": 1}, InvalidTypeError, "`generator` must be a torch.Generator"),
        ({"device": "gpu"}, InvalidArgumentError, "`device` must be a device"),
        ({"interval": (2, 1)}, InvalidArgumentError, "`interval` must be"),
        ({"x": 1.0}, InvalidTypeError, "`x` must be"),
        ({"call": 1}, InvalidTypeError, r"`call` must be callable as call\(x\)"),
    ],
)
def test_each_declared_kind_refuses_what_it_does_not_admit(options, error, match):
    with pytest.raises(error, match=match):
        function(**{"sde": VPSDE(), **options})


def test_values_become_what_the_function_uses_and_other_arguments_pass():
    got = function(VPSDE(), np.int64(3), 0, "more", device="cpu", interval=[0, 1], shape=3, other=7)
    assert got == (3, torch.device("cpu"), (0.0, 1.0), ("more",), {"other": 7})
    assert type(got[0]) is int
    assert function(VPSDE(), None, device=None) == (None, None, None, (), {})


def test_fields_of_a_dataclass_are_checked_by_position_by_name_and_where_they_are_inherited():
    assert Derived(2, np.int64(3), tail=1) == Derived(scale=2.0, n=3, tail=1)
    assert Derived(tail=1).tail == 2
    with pytest.raises(InvalidArgumentError, match="`scale` must be in"):
        Derived(0.0)
    with pytest.raises(InvalidArgumentError, match="`n` must be at least 1"):
        Derived(1.0, n=0)


def test_python_says_what_a_signature_does_not_admit():
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        function()
    with pytest.raises(TypeError, match="unexpected keyword"):
        Derived(width=1)
