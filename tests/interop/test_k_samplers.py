"""Samplers with k-diffusion's signature give what `solve` gives, and its own samplers' results under their names."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import ScoreModel
from scoresde.core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError, ScoreFnError
from scoresde.interop import K_SAMPLERS, sample_k_diffusion
from scoresde.interop.k_samplers import COUNTERPARTS
from tests.parameters import ways
from tests.refusals import refuses

LEVELS = torch.cat([torch.logspace(math.log10(20.0), math.log10(0.02), 8, dtype=torch.float64), torch.zeros(1)])
TARGET = scoresde.targets.GaussianMixture(
    torch.tensor([1.0, 2.0]), torch.tensor([[-1.0, 0.5], [1.0, 0.0]]), scales=torch.tensor([0.3, 0.6])
)
SDE = scoresde.EDMSDE(0.01, 100.0, t_min=0.0)
SCORE = TARGET.score(SDE)
METHODS = {m.name: m for m in scoresde.methods() if m.kind not in ("backend", "forward")}
WAYS = [name for name in ways() if name in METHODS]  # the loop does not depend on more of a method


def model(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
    """The exact denoiser of the mixture."""
    return SCORE.denoise(x, 1.0, sigma[:, None]).data


def start(dtype: torch.dtype = torch.float64) -> Tensor:
    return (20 * torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).to(dtype)


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def options_of(name: str) -> dict[str, Any]:
    """Few moves, and wide tolerances of adaptive methods."""
    moves = {"moves": 3} if name in ("annealed_langevin", "ncsn") else {}
    return {**moves, **({"rtol": 0.05, "atol": 0.05} if METHODS[name].adaptive else {})}


@pytest.mark.parametrize("method", WAYS)
def test_every_way_of_stepping_gives_what_solve_gives(method: str) -> None:
    """Above 0, bit for bit; adaptive ones from end to end."""
    sde = scoresde.EDMSDE(0.02, 2 * float(LEVELS[0]), t_min=float(LEVELS[-2]))
    above, x = LEVELS[:-1], start()
    where = {"t_start": float(LEVELS[0])} if METHODS[method].adaptive else {"grid": above}
    score = ScoreModel(model, sde, "data", "sigma", context={"all": torch.zeros(5)})  # no sample may leave
    score.context = {}
    options: dict[str, Any] = {"method": method, **options_of(method)}
    wanted = scoresde.solve(sde, score, x, generator=generator(), **where, **options)
    made = sample_k_diffusion(model, x, above, disable=True, generator=generator(), **options)
    assert torch.equal(made, wanted.x)


@pytest.mark.parametrize("name", [*COUNTERPARTS, *(f"sample_{name}" for name in WAYS)])
def test_every_sampler_goes_to_the_data(name: str) -> None:
    """On a list that ends in 0, as user interfaces give it, the result is near the data."""
    assert {*COUNTERPARTS, *(f"sample_{method}" for method in METHODS)} == {*K_SAMPLERS}
    method = name.removeprefix("sample_")
    torch.manual_seed(0)
    options = {} if name in COUNTERPARTS else options_of(method)
    made = K_SAMPLERS[name](
        model, start(torch.float32), LEVELS.float(), extra_args={"cond": 1}, disable=True, **options
    )
    near = method not in METHODS or METHODS[method].kind != "mcmc"  # Langevin moves need more levels
    assert made.dtype == torch.float32 and made.isfinite().all() and (made.abs().max() < 4.0 or not near)


@pytest.mark.parametrize("method", ["heun", "rk4", "rk45"])
def test_where_a_method_has_no_limit_ddim_goes_on_from_its_end(method: str) -> None:
    """To 0 noise: the data estimate of the state where the method ended."""
    options: dict[str, Any] = {"rtol": 0.05, "atol": 0.05} if method == "rk45" else {}
    above, whole = (
        sample_k_diffusion(model, start(), levels, method=method, disable=True, **options)
        for levels in (LEVELS[:-1], LEVELS)
    )
    torch.testing.assert_close(whole, model(above, LEVELS[-2].expand(5)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ["restart", "ncsn"])
def test_the_places_of_a_callback_are_those_of_the_levels(method: str) -> None:
    seen: list[int] = []
    sample_k_diffusion(
        model, start(), LEVELS, callback=lambda info: seen.append(info["i"]), disable=True, method=method
    )
    assert len(seen) > len(LEVELS) - 1 > max(seen) and seen == sorted(seen)


def test_the_callback_gets_what_k_diffusion_gives() -> None:
    seen: list[dict[str, Any]] = []
    sample_k_diffusion(model, start(), LEVELS, callback=seen.append, disable=True, method="rho_heun")
    assert [info["i"] for info in seen] == list(range(8))
    assert all(set(info) == {"x", "i", "sigma", "sigma_hat", "denoised"} for info in seen)
    for key in ("sigma", "sigma_hat"):
        assert torch.allclose(torch.stack([info[key] for info in seen]), LEVELS[:-1], rtol=1e-14)
    for info in seen:
        assert torch.allclose(info["denoised"], model(info["x"], info["sigma"].expand(5)), rtol=1e-12)
    churned: list[dict[str, Any]] = []
    options = {"s_churn": 40.0, "generator": generator()}
    sample_k_diffusion(model, start(), LEVELS, callback=churned.append, disable=True, method="edm", **options)
    assert all(info["sigma_hat"] > info["sigma"] for info in churned)


def test_noise_comes_from_the_noise_sampler() -> None:
    asked: list[tuple[float, float]] = []

    def sampler(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        asked.append((float(sigma), float(sigma_next)))
        return torch.full((5, 2), 0.1 * len(asked), dtype=torch.float64)

    made = sample_k_diffusion(model, start(), LEVELS, disable=True, method="ddim_eta", eta=1.0, noise_sampler=sampler)
    wanted = scoresde.solve(
        SDE, ScoreModel(model, SDE, "data", "sigma"), start(), method="ddim_eta", eta=1.0, grid=LEVELS,
        noise=lambda k, like: torch.full_like(like, 0.1 * (k + 1)),
    )  # fmt: skip
    assert torch.allclose(made, wanted.x, rtol=1e-12)
    assert asked == list(itertools.pairwise(LEVELS.tolist()))
    with pytest.raises(InvalidArgumentError, match="`noise_sampler` must return a tensor of shape"):
        sample_k_diffusion(model, start(), LEVELS, method="ancestral", noise_sampler=lambda a, b: torch.zeros(1))


def test_half_precision_models_get_their_own_dtype() -> None:
    dtype = torch.bfloat16

    def half(x: Tensor, sigma: Tensor) -> Tensor:
        assert x.dtype == sigma.dtype == dtype
        return model(x.double(), sigma.double()).to(dtype)

    made = sample_k_diffusion(half, start(dtype), LEVELS.float(), disable=True, method="dpmpp_2m")
    wanted = sample_k_diffusion(model, start(dtype).double(), LEVELS, disable=True, method="dpmpp_2m")
    assert made.dtype == dtype and (made.double() - wanted).abs().max() < 0.1


def test_bad_input_is_refused_at_once() -> None:
    x, V, T = start(), InvalidArgumentError, InvalidTypeError
    falls = "`sigmas` must be at least two noise levels that fall"
    given: list[tuple[dict[str, Any], type[Exception], str]] = [
        *(({"sigmas": s}, V, falls) for s in ([1.0], [1.0, 2.0], [2.0, 1.0, -1.0], [2.0, 2.0, 0.0])),
        ({"model": None}, T, "`model`"),
        ({"callback": 3}, T, "`callback`"),
        ({"extra_args": 3}, T, "`extra_args`"),
        ({"method": "edm", "s_churns": 3}, V, "s_churns"),
        ({"model": lambda x, s: x[:1]}, ScoreFnError, "`model` must return"),
        ({"model": lambda x, s: x * torch.nan}, NonFiniteError, ""),
    ]
    usual: dict[str, Any] = {"model": model, "x": x, "sigmas": LEVELS, "disable": True}
    refuses((functools.partial(sample_k_diffusion, **{**usual, **g}), error, said) for g, error, said in given)


@pytest.mark.parametrize("levels", [[3.0, 1.0], [3.0, 1.0, 0.0], [3.0, 0.0]])
def test_ddim_does_not_hide_what_a_method_refuses(levels: list[float]) -> None:
    """It takes the place of a method where that has no limit, and nowhere else."""
    options: dict[str, Any] = {"disable": True}
    with pytest.raises(InvalidArgumentError, match="`rtol` must be"):
        sample_k_diffusion(model, start(), levels, method="rk45", rtol=-1.0, **options)
    with pytest.raises(InvalidArgumentError, match="`atol` does not apply to 'heun'"):
        sample_k_diffusion(model, start(), levels, method="heun", atol=0.1, **options)
    if len(levels) == 2 and levels[-1] == 0.0:
        return
    reason = "sigma is 0 at t=0" if levels[-1] == 0.0 else "below 10 x the resolution"  # what the method alone says
    with pytest.raises(InvalidArgumentError, match=reason):
        sample_k_diffusion(model, start(), levels, method="rk45", rtol=1e-30, atol=1e-30, **options)


@pytest.mark.parametrize("method", ["ddim", "dpm_3m", "rk45"])
def test_writing_to_the_state_is_refused(method: str) -> None:
    """The message says who wrote; what the model keeps in its own arguments is its affair."""

    def written(x: Tensor, sigma: Tensor, calls: Tensor) -> Tensor:
        out = model(x, sigma)
        x.mul_(2.0)
        return out

    def counted(x: Tensor, sigma: Tensor, calls: Tensor) -> Tensor:
        calls += 1
        return model(x, sigma)

    calls = torch.zeros(())
    options: dict[str, Any] = {"extra_args": {"calls": calls}, "disable": True, "method": method}
    with pytest.raises(ScoreFnError, match=r"`model` modified its input in place; work on x\.clone\(\)"):
        sample_k_diffusion(written, start(), LEVELS, **options)
    with pytest.raises(ScoreFnError, match="`callback` modified its input in place"):
        sample_k_diffusion(counted, start(), LEVELS, callback=lambda info: info["x"].zero_(), **options)
    sample_k_diffusion(counted, start(), LEVELS, **options)
    assert calls > 1


def test_the_progress_bar_comes_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    """The last step of predictor-corrector methods needs no evaluation."""
    for method in ("unipc", "sa_solver", "ddim", "heun"):
        sample_k_diffusion(model, start(), LEVELS, disable=False, method=method, generator=generator())
        assert "| 8/8 [" in capsys.readouterr().err, method


# With k-diffusion.


@pytest.mark.peers
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("end", ["to zero", "to the last level"])
@pytest.mark.parametrize("name", COUNTERPARTS)
def test_k_diffusions_own_samplers(name: str, end: str, dtype: torch.dtype) -> None:
    sampling = pytest.importorskip("k_diffusion.sampling", exc_type=ImportError)
    if name == "sample_lms" and end == "to zero":
        pytest.skip("its last step is of full order, where the denoiser's output alone is the answer")
    levels = (LEVELS if end == "to zero" else LEVELS[:-1]).to(dtype)
    noise: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    if COUNTERPARTS[name][0] in {m.name for m in METHODS.values() if m.stochastic}:
        tree = sampling.BrownianTreeNoiseSampler(torch.zeros(5, 2, dtype=torch.float64), 0.0, 30.0, seed=3)

        def rounded(a: Tensor, b: Tensor) -> Tensor:
            """A path is rough: levels that differ in the last digit of float32 see others of its values."""
            near, far = (torch.tensor(float(f"{float(v):.4g}"), dtype=torch.float64) for v in (a, b))
            return tree(near, far) * ((near - far).abs() / (a - b).abs().double()).sqrt()

        noise = theirs = {"noise_sampler": lambda a, b: rounded(a, b).to(dtype)}
    ours_seen: list[dict[str, Any]] = []
    theirs_seen: list[dict[str, Any]] = []
    other = getattr(sampling, name)(
        lambda x, s, **_: model(x.double(), s.double()).to(x.dtype), start(dtype), levels, disable=True,
        callback=lambda info: theirs_seen.append({**info, "x": info["x"].clone()}), **theirs,
    )  # fmt: skip
    made = K_SAMPLERS[name](
        lambda x, s, **_: model(x.double(), s.double()).to(x.dtype), start(dtype), levels, disable=True,
        callback=ours_seen.append, **noise,
    )  # fmt: skip
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    assert (made - other).abs().max() <= tolerance
    assert [info["i"] for info in ours_seen] == [info["i"] for info in theirs_seen]
    for mine, yours in zip(ours_seen, theirs_seen, strict=True):
        for key in ("x", "sigma", "sigma_hat", "denoised"):
            scale = max(1.0, float(yours[key].abs().max()))
            assert (mine[key] - yours[key]).abs().max() <= tolerance * scale, key
