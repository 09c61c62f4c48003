"""What a score function takes is asked before its first evaluation."""

from __future__ import annotations

import functools

import torch

import scoresde
from scoresde.scores import as_score

SDE = scoresde.VPSDE()


class Net(torch.nn.Module):
    def forward(self, x, t, label=None):
        return x


def test_a_score_function_accepts_what_its_signature_takes():
    for function, expected in (
        (lambda x, t: x, False),
        (lambda x, t, label: x, True),
        (lambda x, t, *, label: x, True),
        (lambda x, t, **context: x, True),
        (lambda label, /, x, t: x, False),
        (functools.partial(lambda x, t, label: x, label=3), True),
        (Net(), True),
        (torch.compile(Net(), backend="eager"), True),
        (scoresde.ScoreModel(Net(), SDE, "noise"), True),
        (scoresde.ScoreModel(lambda x, t: x, SDE, "noise"), False),
        (scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)).score(SDE), False),
        (max, True),
    ):
        assert as_score(function).accepts("label") is expected, function
    assert not as_score(torch.compile(Net(), backend="eager")).accepts("other")
