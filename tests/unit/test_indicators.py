"""What tells the error along a path."""

from __future__ import annotations

import torch
from torch import Tensor

import scoresde
from scoresde.trust.indicators import PathWatch

SDE = scoresde.VPSDE()
LAW = scoresde.targets.GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), scales=0.3)


def sizes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Those of an adaptive solve, ``(batch, sizes, *event)``, and the steps of each sample."""
    watch = PathWatch(SDE, 1.0, SDE.t_max, x)
    options = {"method": "dpm23", "rtol": 1e-3, "atol": 1e-3}
    solution = scoresde.solve(SDE, LAW.score(SDE), x, callback=watch, **options)
    return torch.stack(watch.fields(), 1), solution.accepted + solution.rejected


def test_samples_that_have_arrived_add_nothing() -> None:
    """Of a batch whose samples take different numbers of steps each has the sizes that it has alone."""
    x = SDE.prior_sample((6, 2), generator=torch.Generator().manual_seed(0))
    together, steps = sizes(x)
    assert len(steps.unique()) > 1 and bool(together.isfinite().all())
    for i, row in enumerate(together):
        torch.testing.assert_close(row, sizes(x[i : i + 1])[0][0], rtol=1e-4, atol=1e-6)
