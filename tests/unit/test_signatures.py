"""What a score function takes is asked before its first evaluation."""

from __future__ import annotations

import functools

import pytest
import torch

import scoresde
from scoresde._signatures import accepts

SDE = scoresde.VPSDE()


class Net(torch.nn.Module):
    def forward(self, x, t, label=None):
        return x


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, t: x, False),
        (lambda x, t, label: x, True),
        (lambda x, t, *, label: x, True),
        (lambda x, t, **context: x, True),
        (lambda label, /, x, t: x, False),
        (functools.partial(lambda x, t, label: x, label=3), True),
        (Net(), True),
        (scoresde.ScoreModel(Net(), SDE, "noise"), True),
        (scoresde.ScoreModel(lambda x, t: x, SDE, "noise"), False),
        (scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)).score(SDE), False),
        (max, True),
    ],
)
def test_accepts(function, expected):
    assert accepts(function, "label") is expected


def test_a_compiled_module_takes_what_it_was_made_of():
    compiled = torch.compile(Net(), backend="eager")
    assert accepts(compiled, "label") and not accepts(compiled, "other")


def never(x, t):
    raise AssertionError("evaluated")


@pytest.mark.parametrize("score_fn", [never, scoresde.ScoreModel(never, SDE, "noise")])
def test_solve_and_check_refuse_a_context_that_nobody_takes(score_fn):
    context = {"label": torch.zeros(3)}
    with pytest.raises(scoresde.InvalidArgumentError, match="label"):
        scoresde.solve(SDE, score_fn, shape=(3, 2), context=context)
    with pytest.raises(scoresde.InvalidArgumentError, match="label"):
        scoresde.check_score(SDE, score_fn, torch.randn(3, 2), context=context)
