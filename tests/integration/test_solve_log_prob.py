"""Samples with their log-densities, in one solve."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde.core.errors import InvalidArgumentError, NonFiniteError, ScoreFnError

F64 = torch.float64
TARGET = scoresde.targets.GaussianMixture(
    torch.tensor([0.4, 0.6], dtype=F64), torch.tensor([[-1.0, 0.5], [0.8, 0.0]], dtype=F64), scales=0.5
)
EXACT = {"divergence": "exact"}


@pytest.mark.parametrize(
    ("sde", "method"),
    [(scoresde.VPSDE(), "adams"), (scoresde.FlowSDE(), "rk45"), (scoresde.VESDE(sigma_max=20.0), "adams")],
    ids=repr,
)
def test_it_is_the_density_of_the_samples(sde: scoresde.AffineSDE, method: str) -> None:
    """By the likelihood of the same samples as data, to the tolerance of both."""
    score_fn = TARGET.score(sde)
    given = {"method": method, "shape": (6, 2), "seeds": range(6), "dtype": F64}
    solution = scoresde.solve(sde, score_fn, log_prob=EXACT, **given)
    again = scoresde.log_likelihood(sde, score_fn, solution.x, divergence="exact", check=False)
    torch.testing.assert_close(solution.log_prob, again.log_prob, rtol=0, atol=2e-4)
    assert float(solution.log_prob_error.abs().max()) == 0
    plain = scoresde.solve(sde, score_fn, rtol=1e-6, atol=1e-6, **given)
    torch.testing.assert_close(solution.x, plain.x, rtol=0, atol=2e-4)


def test_an_estimate_is_within_its_error_and_samples_keep_their_seeds() -> None:
    sde = scoresde.VPSDE()
    score_fn = TARGET.score(sde)
    given: dict[str, Any] = {"method": "adams", "dtype": F64}
    probed = given | {"log_prob": {"probes": 64, "probe": "gaussian"}}
    exact = scoresde.solve(sde, score_fn, shape=(64, 2), seeds=range(64), log_prob=EXACT, **given)
    some = scoresde.solve(sde, score_fn, shape=(64, 2), seeds=range(64), **probed)
    z = (some.log_prob - exact.log_prob) / some.log_prob_error
    assert float(z.square().mean()) < 2  # 1 for many probes
    alone = scoresde.solve(sde, score_fn, shape=(1, 2), seeds=[5], **probed)
    torch.testing.assert_close(alone.log_prob[0], some.log_prob[5], rtol=0, atol=1e-3)


def test_labels_and_single_precision() -> None:
    sde = scoresde.VPSDE()
    one = TARGET.score(sde)

    def score_fn(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return torch.where(label[:, None] == 1, one(x, t), -x)

    solution = scoresde.solve(
        sde, score_fn, method="adams", shape=(3, 2), seed=0, context={"label": torch.tensor([0, 1, 0])}, log_prob=EXACT
    )
    assert solution.x.dtype == torch.float32 and solution.log_prob.dtype == F64
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(solution.x[::2].double()).sum(1)
    torch.testing.assert_close(solution.log_prob[::2], normal, rtol=0, atol=1e-3)


def test_what_does_not_fit_is_refused() -> None:
    sde, adams = scoresde.VPSDE(), {"method": "adams"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"method": "unipc2"}, "'adams' or an adaptive pair"),
        (adams | {"denoise": True}, "`denoise` does not go"),
        (adams | {"save_at": "steps"}, "`save_at` does not go"),
        (adams | {"t_start": 0.5, "x": torch.ones(2, 2)}, "from the prior"),
        (adams | {"log_prob": {"probe_count": 3}}, "did you mean 'probe'"),
        (adams | {"path_log_prob": True}, "`path_log_prob` does not go"),
    ]
    for options, reason in cases:
        given = {"log_prob": True, "shape": None if "x" in options else (2, 2), **options}
        with pytest.raises(InvalidArgumentError, match=reason):
            scoresde.solve(sde, TARGET.score(sde), **given)


def test_a_network_without_gradients_has_no_density() -> None:
    sde = scoresde.VPSDE()
    score_fn = scoresde.targets.Gaussian(torch.zeros(3), 0.3 * torch.eye(3)).score(sde)
    options: dict[str, Any] = {"method": "adams", "shape": (4, 3), "seed": 0, "rtol": 1e-2, "atol": 1e-2}
    for network in (
        torch.no_grad()(lambda x, t: score_fn(x, t)),
        lambda x, t: score_fn(x.detach(), t),
        lambda x, t: score_fn(x, t) + x.mean(0),  # coupled
    ):
        with pytest.raises(ScoreFnError, match=r"blocks gradients|rest of its batch"):
            scoresde.solve(sde, network, log_prob=EXACT, **options)
        found = scoresde.solve(sde, network, log_prob=EXACT | {"check": False}, **options)
        assert bool(found.log_prob.isfinite().all())


def test_samples_that_fail_have_no_density_and_leave_the_others() -> None:
    sde = scoresde.VPSDE()
    score_fn = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)).score(sde)

    def breaks(x: torch.Tensor, t: torch.Tensor, bad: torch.Tensor) -> torch.Tensor:
        return torch.where((bad * (t < 0.5))[:, None] > 0, torch.nan, score_fn(x, t))

    options: dict[str, Any] = {"method": "adams", "shape": (3, 2), "seeds": [0, 1, 2]}
    context = {"bad": torch.tensor([0.0, 1.0, 0.0])}
    found = scoresde.solve(sde, breaks, context=context, throw=False, log_prob=EXACT, **options)
    assert found.success.tolist() == [True, False, True]
    assert found.log_prob.isnan().tolist() == [False, True, False] and bool(found.x[1].isnan().all())
    whole = scoresde.solve(sde, score_fn, log_prob=EXACT, **options)
    assert torch.allclose(found.log_prob[[0, 2]], whole.log_prob[[0, 2]], atol=1e-5)
    with pytest.raises(NonFiniteError):
        scoresde.solve(sde, breaks, context=context, log_prob=EXACT, **options)
