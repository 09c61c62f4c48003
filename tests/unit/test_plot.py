"""Pictures of samples, and figures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import scoresde
from scoresde import plot
from scoresde.core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError, OutputError, ScoreSDEError
from scoresde.plot import (
    bits_histogram,
    cause_bars,
    divergence_profile,
    error_curves,
    image_animation,
    image_grid,
    image_table,
    mean_and_spread,
)

SDE = scoresde.VPSDE()
TARGET = scoresde.targets.GaussianMixture(torch.ones(2), torch.tensor([[-1.0, 0.5], [1.0, -0.5]]), scales=0.2)


def solved(method: str = "ddim", batch: int = 5, save_at: Any = "steps", **options: Any) -> scoresde.Solution:
    steps = {} if method == "tsit5" else {"steps": 6}
    return scoresde.solve(
        SDE, TARGET.score(SDE), method=method, shape=(batch, 2), seed=0, save_at=save_at, **steps, **options
    )


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


def test_values_become_grey_levels() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0, -0.5]).reshape(1, 1, 2, 2)
    assert pixels(image_grid(x, scale=1)).tolist() == [[0, 128], [255, 64]]
    assert pixels(image_grid(x, scale=1, data_range=(0, 1))).tolist() == [[0, 0], [255, 0]]
    assert pixels(image_grid(x, scale=1, data_range=(-2, 2))).tolist() == [[64, 128], [191, 96]]
    outside = torch.tensor([-1e30, 1e30, -1.0001, 1.0001]).reshape(1, 1, 2, 2)
    assert pixels(image_grid(outside, scale=1)).tolist() == [[0, 255], [0, 255]]


def test_an_animation_is_its_grids(tmp_path: Path) -> None:
    states = [torch.linspace(-1, 1, 3 * 16).reshape(3, 1, 4, 4) * k for k in (0.1, 0.5, 1.0)]
    frames = image_animation(states, tmp_path / "a.gif", scale=2, columns=3, seconds=1.2)
    assert [pixels(frame).tolist() for frame in frames] == [
        pixels(image_grid(state, scale=2, columns=3)).tolist() for state in states
    ]
    with Image.open(tmp_path / "a.gif") as film:
        assert (film.n_frames, film.info["loop"], film.size) == (3, 0, frames[0].size)
        times = []
        for i in range(3):
            film.seek(i)
            times.append(film.info["duration"])
        assert times == [400, 400, 1000]


def test_invalid_animations_are_refused(tmp_path: Path) -> None:
    image = torch.zeros(2, 1, 4, 4)
    for states, options, said in (([], {}, "at least one"), ([image], {"seconds": 0.0}, "`seconds`")):
        with pytest.raises(ScoreSDEError, match=said):
            image_animation(states, tmp_path / "a.gif", **options)
    assert not list(tmp_path.iterdir())


def test_images_stand_row_by_row_and_are_magnified_exactly() -> None:
    for channels in (1, 3):
        x = torch.rand((5, channels, 3, 4), generator=torch.Generator().manual_seed(0)) * 2 - 1
        picture = pixels(image_grid(x, columns=2, scale=3))
        assert picture.shape[:2] == (3 * 9 + 2 * 2, 2 * 12 + 2)
        picture = picture.reshape(*picture.shape[:2], channels)
        expected = ((x + 1) / 2 * 255).round().long().numpy().transpose(0, 2, 3, 1)
        covered = np.zeros(picture.shape[:2], dtype=bool)
        for i in range(5):
            area = (slice(i // 2 * 11, i // 2 * 11 + 9), slice(i % 2 * 14, i % 2 * 14 + 12))
            assert np.array_equal(picture[area], expected[i].repeat(3, 0).repeat(3, 1))
            covered[area] = True
        assert len(np.unique(picture[~covered])) == 1
    assert image_grid(torch.zeros(64, 1, 8, 8)).size == (270, 270)


def test_the_file_is_the_picture_and_invalid_images_are_refused(tmp_path: Path) -> None:
    good = torch.zeros(4, 1, 8, 8)
    picture = image_grid(good, tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as read:
        assert read.format == "PNG" and np.array_equal(pixels(read), pixels(picture))
    with pytest.raises(OutputError):
        image_grid(good, tmp_path / "missing" / "a.png")
    x = good.clone()
    x[2, 0, 1, 1] = math.nan
    with pytest.raises(NonFiniteError, match="1 of 4 samples") as caught:
        image_grid(x, tmp_path / "a.png")
    assert caught.value.indices == [2] and caught.value.stage == "input"
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]
    cases: list[tuple[Any, dict[str, Any], type[Exception]]] = [
        (good[:, 0], {}, InvalidArgumentError),
        (good.expand(4, 2, 8, 8), {}, InvalidArgumentError),
        (good.to(torch.uint8), {}, InvalidTypeError),
        (good, {"data_range": (1, -1)}, InvalidArgumentError),
        (good, {"columns": 0}, InvalidArgumentError),
        (good, {"scale": 1.5}, InvalidTypeError),
    ]
    for x, arguments, error in cases:
        with pytest.raises(error):
            image_grid(x, **arguments)


def test_the_histogram_shows_all_values_and_their_mean(tmp_path: Path) -> None:
    bits = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
    axes = bits_histogram(bits, tmp_path / "a.png", bins=7, title="digits")
    assert len(axes.containers[0]) == 7 and sum(bar.get_height() for bar in axes.containers[0]) == 200
    error = float(bits.std()) / 200**0.5
    assert axes.lines[0].get_xdata()[0] == pytest.approx(float(bits.mean()), abs=1e-12)
    band = axes.patches[-1]
    assert band.get_width() == pytest.approx(2 * error)
    assert band.get_x() == pytest.approx(float(bits.mean()) - error)
    text = axes.get_legend().get_texts()[0].get_text()
    assert text == f"mean {float(bits.mean()):.4f} ± {error:.4f}" and axes.get_title() == "digits"
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG" and picture.size == (960, 600)


def test_error_bars_of_the_histogram_are_those_of_the_exact_values() -> None:
    generator = torch.Generator().manual_seed(1)
    bits = torch.rand(40, generator=generator, dtype=torch.float64)
    errors = 0.2 * torch.rand(40, generator=generator, dtype=torch.float64)
    errors[:10] = 0.0  # exact values, two of them at the ends of the range
    bits[0], bits[1] = -0.1, 1.1
    axes = bits_histogram(bits, bins=6, errors=errors)
    edges = np.append([bar.get_x() for bar in axes.containers[0]], 1.1)
    draws = bits + errors * torch.randn(8_000, 40, generator=generator, dtype=torch.float64)
    counts = np.stack([np.histogram(row, edges)[0] for row in draws.numpy()])
    line, _, (bars,) = axes.containers[1]
    segments = np.array([[low[1], high[1]] for low, high in bars.get_segments()])
    expected, deviation = counts.mean(0), counts.std(0)
    # Twelve figures, each within 4.5 of its standard errors: a false alarm has a probability of 8e-5.
    assert np.all(abs(line.get_ydata() - expected) < 4.5 * deviation / 8_000**0.5 + 1e-12)
    assert np.all(abs(np.diff(segments)[:, 0] / 2 - deviation) < 4.5 * deviation / 16_000**0.5 * 1.2 + 1e-12)


def test_the_profile_goes_from_data_to_noise(tmp_path: Path) -> None:
    for order in (1, -1):
        levels, values = torch.linspace(8, -8, 5), torch.arange(10.0).reshape(2, 5)
        if order < 0:
            levels, values = levels.flip(0), values.flip(1)
        axes = divergence_profile(levels, values, tmp_path / "a.png", names=["a", "b"])
        assert [line.get_xdata().tolist() for line in axes.lines] == [levels.tolist()] * 2
        assert [line.get_ydata().tolist() for line in axes.lines] == values.tolist()
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
        left, right = axes.get_xlim()
        assert left > 8 > -8 > right
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_errors_and_their_ratios_to_bounds(tmp_path: Path) -> None:
    errors, ratios = torch.tensor([0.4, 0.1, 0.2, 0.3]), torch.tensor([2.0, 0.5])
    left, right = error_curves(
        errors, ratios, tmp_path / "a.png", distance=0.25, probability=0.9535, unit="mm", title="ddim"
    )
    curve, point = left.lines
    assert curve.get_xdata().tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert curve.get_ydata().tolist() == [1.0, 0.75, 0.5, 0.25]  # at least as large, up to the next one
    assert point.get_xdata()[0] == point.get_ydata()[0] == 0.25 and left.get_xscale() == "log"
    assert right.lines[0].get_xdata().tolist() == [0.5, 2.0] and right.lines[0].get_ydata().tolist() == [0.5, 1.0]
    assert right.get_legend().get_texts()[0].get_text() == "bound, holds with probability 0.954"
    assert left.get_xlabel() == "error (mm)" and (tmp_path / "a.png").stat().st_size > 1000
    assert error_curves(torch.tensor([0.0, 1.0]), ratios)[0].get_xscale() == "linear"


def test_causes_are_bars(tmp_path: Path) -> None:
    sizes = torch.tensor([0.1, torch.inf, 0.0])
    axes, _ = (
        cause_bars(["steps", "dtype", "prior"], sizes, ["dtype"], tmp_path / i, total=0.5, floor=0.2) for i in "ab"
    )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()  # the same figure is the same file
    bars = axes.containers[0]
    assert [bar.get_width() for bar in bars] == pytest.approx([0.1, 0.6, 0.0])  # 1.2 times the largest number
    assert len({bar.get_facecolor() for bar in bars}) == 2 and bars[0].get_facecolor() == bars[2].get_facecolor()


def test_invalid_figures_are_refused(tmp_path: Path) -> None:
    nan, three, path = torch.tensor([1.0, torch.nan]), torch.arange(3.0), tmp_path / "a.png"
    cases: list[tuple[type[Exception], Any]] = [
        (NonFiniteError, lambda: bits_histogram(nan, path)),
        (InvalidArgumentError, lambda: bits_histogram(torch.ones(2), path, bins=0)),
        (InvalidArgumentError, lambda: bits_histogram(torch.ones(2), path, errors=torch.ones(3))),
        (OutputError, lambda: bits_histogram(torch.ones(2), path / "missing" / "a.png")),
        (NonFiniteError, lambda: error_curves(torch.ones(3), nan, path)),
        (NonFiniteError, lambda: cause_bars(["a", "b"], nan, [], path)),
        (InvalidArgumentError, lambda: cause_bars(["a"], torch.ones(2), [], path)),
        (InvalidArgumentError, lambda: divergence_profile(three, torch.ones(1, 2), path)),
        (NonFiniteError, lambda: divergence_profile(three, torch.full((1, 3), torch.inf), path)),
    ]
    for error, figure in cases:
        with pytest.raises(error):
            figure()
    assert list(tmp_path.iterdir()) == []


def test_one_element_is_drawn_against_the_time_with_noise_on_the_left() -> None:
    solution = solved()
    ax = plot.trajectories(solution, dims=[1], most=3)
    assert len(ax.lines) == 3
    for i, line in enumerate(ax.lines):
        assert np.array_equal(line.get_xdata(), solution.ts.numpy())
        assert np.array_equal(line.get_ydata(), solution.xs[:, i, 1].double().numpy())
    left, right = ax.get_xlim()
    assert left > right and ax.get_ylabel() == "$x_{1}$"
    against = plot.trajectories(solution, dims=[1], sde=SDE)
    assert np.allclose(against.lines[0].get_xdata(), SDE.log_snr(solution.ts).numpy())
    left, right = against.get_xlim()
    assert left < right and "log-SNR" in against.get_xlabel()


def test_two_elements_are_drawn_in_their_plane_up_to_their_ends() -> None:
    solution = solved()
    ax = plot.trajectories(solution)
    *ways, ends = ax.lines
    assert len(ways) == 5 and np.array_equal(ends.get_xydata(), solution.x.double().numpy())
    assert np.array_equal(ways[2].get_xydata(), solution.xs[:, 2].double().numpy())


def test_samples_of_an_adaptive_method_have_times_of_their_own() -> None:
    solution = solved("tsit5")
    assert solution.ts.ndim == 2
    drawn = plot.trajectories(solution, dims=[0]).lines
    assert [np.array_equal(line.get_xdata(), solution.ts[:, i].numpy()) for i, line in enumerate(drawn)] == [True] * 5
    ax = plot.step_sizes(solution, most=4)
    for i, line in enumerate(ax.lines):
        sizes = -solution.ts[:, i].diff()
        assert np.array_equal(line.get_ydata(), sizes[sizes > 0].numpy())
        assert len(line.get_ydata()) == int(solution.accepted[i])
    assert len(ax.lines) == 4 and ax.get_yscale() == "log"
    with pytest.raises(InvalidArgumentError, match="save_at=times"):
        plot.density_evolution(solution)
    assert plot.density_evolution(solved("tsit5", save_at=[1.0, 0.5, 0.001])).collections


def test_each_time_has_a_histogram() -> None:
    solution = solved(batch=400)
    ax = plot.density_evolution(solution, bins=10, dim=1)
    shares = np.asarray(ax.collections[0].get_array()).reshape(10, 7)
    values = solution.xs[:, :, 1].double().numpy()
    for i, row in enumerate(values):
        counts, _ = np.histogram(row, 10, (values.min(), values.max()))
        assert shares[:, i] == pytest.approx(counts / counts.max(), abs=0.03)  # a value on an edge
    left, right = ax.get_xlim()
    assert (left, right) == (1.0, 0.001)


def test_a_row_of_nodes_for_each_grid() -> None:
    grids = {"even": torch.linspace(1.0, 0.1, 4), "mine": scoresde.Grid((1.0, 0.5, 0.1))}
    ax = plot.grid_nodes(grids)
    shown = {line.get_ydata()[0]: line.get_xdata().tolist() for line in ax.lines if line.get_linestyle() == "None"}
    assert shown[0] == pytest.approx([1.0, 0.7, 0.4, 0.1]) and shown[1] == [1.0, 0.5, 0.1]
    left, right = ax.get_xlim()
    assert left > right


def test_points_move_from_frame_to_frame(tmp_path: Path) -> None:
    frames = plot.point_animation(solved(batch=40), tmp_path / "a.gif", behind=torch.zeros(3, 2), frames=4)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == len(frames) == 4
    assert len({frame.tobytes() for frame in frames}) == 4


def test_curves_are_in_the_order_of_their_work() -> None:
    ax = plot.work_precision({"a": ([20, 5], [0.1, 0.4]), "b": (torch.tensor([5.0]), [0.3])}, orders=(2,))
    slope, first, second = ax.lines
    assert first.get_xydata().tolist() == [[5.0, 0.4], [20.0, 0.1]] and second.get_xydata().tolist() == [[5.0, 0.3]]
    assert slope.get_ydata()[1] / slope.get_ydata()[0] == pytest.approx((5 / 20) ** 2)
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_posteriors_over_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    sets = {name: torch.randn(300, 2, generator=generator) + shift for name, shift in (("a", 0.0), ("b", 1.0))}
    rows = plot.corner(sets, truth=torch.tensor([0.25, 0.75]), names=["u", "v"], title="both")
    assert [len(row) for row in rows] == [2, 2] and rows[1][0].get_ylabel() == "v"
    figure = rows[0][0].figure
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert any(line.get_xdata()[0] == 0.25 for line in rows[0][0].lines if len(line.get_xdata()))


def test_a_table_of_images_names_its_rows_and_columns() -> None:
    x = torch.linspace(-1, 1, 6)[:, None, None, None].expand(6, 1, 8, 8).reshape(2, 3, 1, 8, 8)
    ax = image_table(x, rows=["p", "q"], columns=["a", "b", "c"])
    picture = np.asarray(ax.images[0].get_array())
    places = [round(v) for v in ax.get_xticks()], [round(v) for v in ax.get_yticks()]
    shown = [[picture[row, column] for column in places[0]] for row in places[1]]
    assert shown == (127.5 + 127.5 * x[:, :, 0, 0, 0]).round().tolist()
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a", "b", "c"]


def test_mean_and_spread_are_those_of_the_samples() -> None:
    x = torch.rand(7, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen, mean, spread = mean_and_spread(x, measured=torch.zeros(1, 2, 2))
    assert [ax.get_title() for ax in (seen, mean, spread)] == ["measured", "mean", "standard deviation"]
    unit = (x.double().mean(0) / 2 + 0.5).movedim(0, -1)
    assert np.allclose(mean.images[0].get_array(), unit.numpy())
    expected = x.double().var(0).mean(0).sqrt().numpy()
    assert np.allclose(spread.images[0].get_array(), expected)


FIGURES: dict[str, Any] = {
    "trajectories": lambda ax: plot.trajectories(solved(), ax=ax),
    "density_evolution": lambda ax: plot.density_evolution(solved(), ax=ax),
    "step_sizes": lambda ax: plot.step_sizes(solved(), ax=ax),
    "grid_nodes": lambda ax: plot.grid_nodes({"a": [1.0, 0.0]}, ax=ax),
    "work_precision": lambda ax: plot.work_precision({"a": ([1], [1])}, ax=ax),
    "bits_histogram": lambda ax: bits_histogram(torch.ones(3), ax=ax),
    "divergence_profile": lambda ax: divergence_profile(torch.arange(3.0), torch.ones(1, 3), ax=ax),
    "cause_bars": lambda ax: cause_bars(["a"], torch.ones(1), [], ax=ax),
    "image_table": lambda ax: image_table(torch.zeros(1, 2, 1, 4, 4), ax=ax),
    "mean_and_spread": lambda ax: mean_and_spread(torch.zeros(2, 1, 4, 4), ax=[ax, ax]),
    "error_curves": lambda ax: error_curves(torch.ones(2), torch.ones(2), ax=[ax, ax]),
}


def test_figures_are_drawn_in_given_axes_and_return_them() -> None:
    others = {"corner", "image_grid", "image_animation", "point_animation"}
    assert {name for name in plot.__all__ if name.islower()} == set(FIGURES) | others
    for name, figure in FIGURES.items():
        ax = Figure().subplots()
        returned = figure(ax)
        assert returned is ax or all(one is ax for one in returned), name
        assert ax.has_data() or ax.images, name
        with pytest.raises(InvalidTypeError, match="`ax`"):
            figure(1)
    assert plt.get_fignums() == []


def test_what_cannot_be_drawn_is_named() -> None:
    solution, image = solved(), torch.zeros(2, 1, 8, 8)
    for said, figure in (
        ("no saved states", lambda: plot.trajectories(solved(save_at=None))),
        ("scoresde.solve returns", lambda: plot.trajectories(torch.zeros(3))),
        (r"`dims\[0\]`", lambda: plot.trajectories(solution, dims=[2])),
        ("`bins`", lambda: plot.density_evolution(solution, bins=1)),
        ("two saved times", lambda: plot.density_evolution(solved(save_at=[0.5]))),
        ("one length", lambda: plot.work_precision({"a": ([1, 2], [1])})),
        ("positive", lambda: plot.work_precision({"a": ([1, 2], [1, 0])})),
        ("n > 3", lambda: plot.corner(torch.zeros(2, 3))),
        ("`behind`", lambda: plot.point_animation(solution, behind=torch.zeros(3, 3))),
        ("rows, columns", lambda: image_table(image)),
        ("two images", lambda: mean_and_spread(image[:1])),
    ):
        with pytest.raises(ScoreSDEError, match=said):
            figure()
