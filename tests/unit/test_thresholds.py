"""Limits of the data estimate."""

from __future__ import annotations

import pytest
import torch

import scoresde
from scoresde.scores import Clip, DynamicThreshold

from .refusals import assert_refused

SDE = scoresde.VPSDE()
F64 = torch.float64


def model(scale=2.0):
    return scoresde.ScoreModel(lambda x, t: scale * x, SDE, prediction="data")


@pytest.mark.parametrize("make", [Clip, DynamicThreshold])
def test_the_state_is_still_alpha_data_plus_sigma_noise(make):
    x = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    for t in (0.001, 0.3, 1.0):
        node = SDE.node(t)
        got = make(model()).estimate(x, node)
        torch.testing.assert_close(node.alpha * got.data + node.sigma * got.noise, x, rtol=1e-12, atol=1e-12)
        assert float(got.data.abs().max()) <= 1.0


def test_clip_changes_only_what_is_outside():
    x = torch.tensor([[0.2, 0.7, -3.0]], dtype=F64)
    plain, node = model().estimate(x, SDE.node(0.5)), SDE.node(0.5)
    got = Clip(model()).estimate(x, node)
    torch.testing.assert_close(got.data, torch.tensor([[0.4, 1.0, -1.0]], dtype=F64))
    assert torch.equal(got.noise[0, :1], plain.noise[0, :1])
    score = Clip(model())(x, 0.5)
    torch.testing.assert_close(score, -got.noise / node.sigma)


def test_dynamic_threshold_is_each_samples_own():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 100, generator=generator, dtype=F64) * torch.tensor([[0.01], [1.0], [3.0], [10.0]], dtype=F64)
    got = DynamicThreshold(model(1.0), quantile=0.9).estimate(x, SDE.node(0.5)).data
    for row, data in zip(x, got, strict=True):
        s = max(1.0, float(torch.quantile(row.abs().float(), 0.9)))
        torch.testing.assert_close(data, row.clamp(-s, s) / s, rtol=1e-6, atol=1e-7)
    alone = DynamicThreshold(model(1.0), quantile=0.9).estimate(x[2:3], SDE.node(0.5)).data
    assert torch.equal(alone[0], got[2])


def test_they_work_in_a_solve_and_pass_on_what_they_wrap():
    target = scoresde.targets.GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]]), scales=0.3)
    score_fn = target.score(SDE)
    clipped = Clip(score_fn, -1.0, 1.0)
    assert clipped.event_shape == (1,) and clipped.rowwise and not clipped.accepts("label")
    x = scoresde.solve(SDE, clipped, method="ddim", seeds=range(64), denoise=True).x
    assert float(x.abs().max()) <= 1.0
    wide = scoresde.solve(SDE, Clip(score_fn, -50.0, 50.0), method="dpmpp_2m", seeds=range(8)).x
    torch.testing.assert_close(wide, scoresde.solve(SDE, score_fn, method="dpmpp_2m", seeds=range(8)).x)


def test_a_bare_callable_needs_the_process():
    with pytest.raises(scoresde.InvalidArgumentError, match="sde"):
        Clip(lambda x, t: -x)
    bare, known = Clip(lambda x, t: -x, sde=SDE), Clip(scoresde.ScoreModel(lambda x, t: -x, SDE, "score"))
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(bare(x, 0.3), known(x, 0.3))


def test_refusals():
    assert_refused(
        [
            (lambda: Clip(model(), 1.0, -1.0), "low"),
            (lambda: DynamicThreshold(model(), quantile=1.5), "quantile"),
            (lambda: DynamicThreshold(model(), bound=0.0), "bound"),
            (lambda: Clip(model(), sde=scoresde.VESDE()), "was made for"),
        ]
    )
    assert Clip(model(), sde=scoresde.VPSDE()).sde.same_schedule(SDE)


def test_another_method_of_the_name_is_the_score_functions_own():
    class Fitted:
        def estimate(self, data):
            raise AssertionError

        def __call__(self, x, t):
            return -x

    x = torch.ones(2, 2)
    wide = scoresde.solve(SDE, Clip(Fitted(), -50.0, 50.0, sde=SDE), x, method="ddim", steps=5).x
    torch.testing.assert_close(wide, scoresde.solve(SDE, Fitted(), x, method="ddim", steps=5).x)
