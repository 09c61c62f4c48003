"""Pictures of samples, figures, and files that are there completely or not at all."""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scoresde.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError, OutputError, ScoreSDEError
from scoresde.files.locks import locked, owned
from scoresde.files.writing import check_target, extend, remove_temporaries, write_bytes
from scoresde.plot import bits_histogram, cause_bars, divergence_profile, error_curves, image_animation, image_grid


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


# Pictures


def test_values_become_grey_levels() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0, -0.5]).reshape(1, 1, 2, 2)
    assert pixels(image_grid(x, scale=1)).tolist() == [[0, 128], [255, 64]]
    assert pixels(image_grid(x, scale=1, data_range=(0, 1))).tolist() == [[0, 0], [255, 0]]
    assert pixels(image_grid(x, scale=1, data_range=(-2, 2))).tolist() == [[64, 128], [191, 96]]


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


@pytest.mark.parametrize(
    ("states", "options", "said"),
    [
        ([], {}, "at least one"),
        (torch.zeros(2, 1, 4, 4), {}, "a list of tensors"),
        ([torch.zeros(2, 1, 4, 4), torch.zeros(3, 1, 4, 4)], {}, "one shape"),
        ([torch.zeros(2, 4)], {}, "must be images"),
        ([torch.full((1, 1, 4, 4), torch.nan)], {}, "NaN"),
        ([torch.zeros(1, 1, 4, 4)], {"seconds": 0.0}, "`seconds`"),
        ([torch.zeros(1, 1, 4, 4)], {"seconds": 61.0}, "`seconds`"),
    ],
)
def test_animations_that_are_none(states: Any, options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ScoreSDEError, match=said):
        image_animation(states, tmp_path / "a.gif", **options)
    assert not list(tmp_path.iterdir())


def test_values_outside_are_clipped() -> None:
    x = torch.tensor([-1e30, 1e30, -1.0001, 1.0001]).reshape(1, 1, 2, 2)
    assert pixels(image_grid(x, scale=1)).tolist() == [[0, 255], [0, 255]]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_row_by_row_and_are_magnified_exactly(channels: int) -> None:
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


@pytest.mark.parametrize(
    ("count", "event", "size"),
    [
        (64, (1, 8, 8), (270, 270)),
        (1, (1, 8, 8), (32, 32)),
        (3, (1, 8, 8), (66, 66)),
        (2, (1, 40, 64), (130, 40)),
        (1, (3, 5, 9), (63, 35)),
    ],
)
def test_default_size(count: int, event: tuple[int, ...], size: tuple[int, int]) -> None:
    assert image_grid(torch.zeros(count, *event)).size == size


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(value: float, tmp_path: Path) -> None:
    x = torch.zeros(4, 1, 8, 8)
    x[2, 0, 1, 1] = value
    with pytest.raises(NonFiniteError, match="1 of 4 samples") as caught:
        image_grid(x, tmp_path / "a.png")
    assert caught.value.indices == [2] and caught.value.stage == "input"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("x", "arguments", "error"),
    [
        (torch.zeros(4, 8, 8), {}, InvalidArgumentError),
        (torch.zeros(4, 2, 8, 8), {}, InvalidArgumentError),
        (torch.zeros(0, 1, 8, 8), {}, InvalidArgumentError),
        (torch.zeros(4, 1, 0, 8), {}, InvalidArgumentError),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), {}, InvalidTypeError),
        (np.zeros((4, 1, 8, 8)), {}, InvalidTypeError),
        (torch.zeros(4, 1, 8, 8), {"data_range": (1, -1)}, InvalidArgumentError),
        (torch.zeros(4, 1, 8, 8), {"data_range": (0, 0)}, InvalidArgumentError),
        (torch.zeros(4, 1, 8, 8), {"data_range": (0, float("nan"))}, InvalidArgumentError),
        (torch.zeros(4, 1, 8, 8), {"data_range": 1}, InvalidTypeError),
        (torch.zeros(4, 1, 8, 8), {"columns": 0}, InvalidArgumentError),
        (torch.zeros(4, 1, 8, 8), {"scale": 0}, InvalidArgumentError),
        (torch.zeros(4, 1, 8, 8), {"scale": 1.5}, InvalidTypeError),
    ],
)
def test_bad_arguments(x: Any, arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        image_grid(x, **arguments)


def test_dtypes_layouts_and_gradients_make_no_difference() -> None:
    x = torch.rand((4, 3, 8, 8), generator=torch.Generator().manual_seed(0)).mul(64).round() / 32 - 1
    plain = pixels(image_grid(x))
    kept = x.clone()
    for other in (
        x.double(),
        x.half(),
        x.bfloat16(),
        x.to(memory_format=torch.channels_last),
        x.clone().requires_grad_(),
    ):
        assert np.array_equal(pixels(image_grid(other)), plain)
    assert torch.equal(x, kept)
    expanded = torch.zeros(1, 1, 1, 1).expand(4, 1, 8, 8)
    assert np.array_equal(pixels(image_grid(expanded)), pixels(image_grid(torch.zeros(4, 1, 8, 8))))


def test_the_file_is_the_picture(tmp_path: Path) -> None:
    picture = image_grid(torch.zeros(4, 1, 8, 8), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as read:
        assert read.format == "PNG" and np.array_equal(pixels(read), pixels(picture))
    with pytest.raises(OutputError):
        image_grid(torch.zeros(4, 1, 8, 8), tmp_path / "missing" / "a.png")


# Figures


def test_the_histogram_shows_all_values_and_their_mean(tmp_path: Path) -> None:
    bits = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
    figure = bits_histogram(bits, tmp_path / "a.png", bins=7, title="digits")
    axes = figure.axes[0]
    bars = [patch for patch in axes.patches if patch.get_height() != 1.0]
    assert len(axes.containers[0]) == 7 and sum(bar.get_height() for bar in axes.containers[0]) == 200
    error = float(bits.std()) / 200**0.5
    assert axes.lines[0].get_xdata()[0] == pytest.approx(float(bits.mean()), abs=1e-12)
    band = axes.patches[-1]
    assert band.get_width() == pytest.approx(2 * error) and len(bars) == 7
    assert band.get_x() == pytest.approx(float(bits.mean()) - error)
    text = axes.get_legend().get_texts()[0].get_text()
    assert text == f"mean {float(bits.mean()):.4f} ± {error:.4f}" and axes.get_title() == "digits"
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG" and picture.size == (960, 600)


def test_one_value_has_no_error() -> None:
    axes = bits_histogram(torch.tensor([3.0])).axes[0]
    assert axes.get_legend().get_texts()[0].get_text() == "mean 3.0000"


@pytest.mark.parametrize("rising", [False, True])
def test_the_profile_goes_from_data_to_noise(tmp_path: Path, rising: bool) -> None:
    levels, values = torch.linspace(8, -8, 5), torch.arange(10.0).reshape(2, 5)
    if rising:
        levels, values = levels.flip(0), values.flip(1)
    figure = divergence_profile(levels, values, tmp_path / "a.png", names=["a", "b"])
    axes = figure.axes[0]
    assert [line.get_xdata().tolist() for line in axes.lines] == [levels.tolist()] * 2
    assert [line.get_ydata().tolist() for line in axes.lines] == values.tolist()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    left, right = axes.get_xlim()
    assert left > 8 > -8 > right
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_errors_and_their_ratios_to_bounds(tmp_path: Path) -> None:
    errors, ratios = torch.tensor([0.4, 0.1, 0.2, 0.3]), torch.tensor([2.0, 0.5])
    figure = error_curves(
        errors, ratios, tmp_path / "a.png", distance=0.25, probability=0.9535, unit="mm", title="ddim"
    )
    left, right = figure.axes
    curve, point = left.lines
    assert curve.get_xdata().tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert curve.get_ydata().tolist() == [1.0, 0.75, 0.5, 0.25]  # at least as large, up to the next one
    assert point.get_xdata()[0] == point.get_ydata()[0] == 0.25 and left.get_xscale() == "log"
    assert right.lines[0].get_xdata().tolist() == [0.5, 2.0] and right.lines[0].get_ydata().tolist() == [0.5, 1.0]
    assert right.get_legend().get_texts()[0].get_text() == "bound, holds with probability 0.954"
    assert left.get_xlabel() == "error (mm)" and (tmp_path / "a.png").stat().st_size > 1000
    assert error_curves(torch.tensor([0.0, 1.0]), ratios).axes[0].get_xscale() == "linear"


def test_causes_are_bars() -> None:
    sizes = torch.tensor([0.1, torch.inf, 0.0])
    axes = cause_bars(["steps", "dtype", "prior"], sizes, ["dtype"], total=0.5, floor=0.2).axes[0]
    bars = axes.containers[0]
    assert [bar.get_width() for bar in bars] == pytest.approx([0.1, 0.6, 0.0])  # 1.2 times the largest number
    assert len({bar.get_facecolor() for bar in bars}) == 2 and bars[0].get_facecolor() == bars[2].get_facecolor()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "chance alone: up to 0.2",
        "samples to data: 0.5",
    ]
    top, bottom = axes.get_ylim()[::-1]
    assert top < 0 < 2 < bottom


def test_the_same_figure_is_the_same_file_and_pyplot_knows_none(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    for name in "ab":
        bits_histogram(torch.tensor([3.0, 4.0]), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() and plt.get_fignums() == []


@pytest.mark.parametrize(
    ("figure", "error"),
    [
        (lambda path: bits_histogram(torch.tensor([1.0, torch.nan]), path), NonFiniteError),
        (lambda path: bits_histogram(torch.tensor([1, 2]), path), InvalidTypeError),
        (lambda path: bits_histogram([1.0], path), InvalidTypeError),
        (lambda path: bits_histogram(torch.ones(0), path), InvalidArgumentError),
        (lambda path: bits_histogram(torch.ones(2, 2), path), InvalidArgumentError),
        (lambda path: bits_histogram(torch.ones(2), path, bins=0), InvalidArgumentError),
        (lambda path: bits_histogram(torch.ones(2), path / "missing" / "a.png"), OutputError),
        (lambda path: error_curves(torch.ones(3), torch.tensor([torch.nan]), path), NonFiniteError),
        (lambda path: error_curves(torch.ones(0), torch.ones(1), path), InvalidArgumentError),
        (lambda path: error_curves(torch.ones(1), torch.ones(1), path, distance=-1.0), InvalidArgumentError),
        (lambda path: error_curves(torch.ones(1), torch.ones(1), path, unit=1), InvalidTypeError),
        (lambda path: cause_bars(["a"], torch.tensor([torch.nan]), [], path), NonFiniteError),
        (lambda path: cause_bars(["a"], torch.ones(2), [], path), InvalidArgumentError),
        (lambda path: cause_bars("a", torch.ones(1), [], path), InvalidArgumentError),
        (lambda path: cause_bars([], torch.ones(0), [], path), InvalidArgumentError),
        (lambda path: divergence_profile(torch.ones(3), torch.ones(1, 3), path), InvalidArgumentError),
        (lambda path: divergence_profile(torch.ones(1), torch.ones(1, 1), path), InvalidArgumentError),
        (lambda path: divergence_profile(torch.arange(3.0), torch.ones(1, 2), path), InvalidArgumentError),
        (lambda path: divergence_profile(torch.arange(3.0), torch.ones(3), path), InvalidArgumentError),
        (lambda path: divergence_profile(torch.arange(3.0), torch.full((1, 3), torch.inf), path), NonFiniteError),
        (lambda path: divergence_profile(torch.arange(3.0), torch.ones(1, 3), path, names=["a", "b"]), ValueError),
        (lambda path: divergence_profile(torch.arange(3.0), torch.ones(1, 3), path, names="a"), InvalidArgumentError),
    ],
)
def test_figures_of_what_is_none(tmp_path: Path, figure: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        figure(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_figures_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'scoresde\[plot\]'"):
        bits_histogram(torch.ones(2))


# Files


def test_extend_drops_what_is_behind(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one and more")
    extend(path, 3, b" two")
    assert path.read_bytes() == b"one two"
    with pytest.raises(OutputError):
        extend(tmp_path / "missing", 0, b"")
    with pytest.raises(OutputError):
        extend(tmp_path, 0, b"")


def test_a_lock_excludes_and_ends(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    for _ in range(2):
        with locked(tmp_path / "a"):
            with pytest.raises(OutputError) as caught:
                with locked(tmp_path / "a"):
                    pass
            assert caught.value.errno == errno.EBUSY
    with pytest.raises(OutputError):
        with locked(tmp_path / "missing" / "a"):
            pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("hold", [locked, owned])
def test_a_lock_ends_with_its_process_though_a_child_of_it_lives(tmp_path: Path, hold: Any) -> None:
    """As the workers of a loader do for some seconds."""
    reader, writer = os.pipe()
    holder = os.fork()
    if not holder:
        with hold(tmp_path / "a"):
            child = os.fork()
            if child:
                os.write(writer, child.to_bytes(8, "big"))
            signal.pause()
    child = int.from_bytes(os.read(reader, 8), "big")
    try:
        with pytest.raises(OutputError):
            with hold(tmp_path / "a"):
                pass
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        os.kill(child, 0)  # it lives
        with hold(tmp_path / "a"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("left", [b"", b"\x00\xff", b"process 1 on \x1b[2J", b"process 7 on here\n"])
def test_a_folder_has_one_owner_who_is_named(tmp_path: Path, left: bytes) -> None:
    pytest.importorskip("fcntl")
    folder = tmp_path / "a" / "b"
    for _ in range(2):
        with owned(folder):
            with pytest.raises(
                OutputError, match=rf"Another run .*\(process {os.getpid()} on .* since 2.*\)"
            ) as caught:
                with owned(folder):
                    pass
            assert caught.value.errno == errno.EBUSY
            (folder / ".lock").write_bytes(left)
            with pytest.raises(OutputError, match=r"folder \(process 7 on here\);" if b"7" in left else "folder; let"):
                with owned(folder):
                    pass
        assert list(tmp_path.iterdir()) == []  # the folders that were made for it
    folder.mkdir(parents=True)
    (folder / ".lock").write_bytes(left)  # of a process that was killed
    with owned(folder):
        (folder / "result").touch()
    assert [path.name for path in folder.iterdir()] == ["result"]
    with pytest.raises(OutputError):
        with owned(folder / "result"):
            pass


def test_temporaries_of_one_file_are_removed(tmp_path: Path) -> None:
    name = f".a.{'0' * 16}.tmp"
    kept = ["a", ".a.tmp", ".a.b.0000000000000000.tmp", f".b.{'0' * 16}.tmp"]
    for file in (name, *kept):
        (tmp_path / file).write_bytes(b"")
    remove_temporaries(tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_write_replaces_completely(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in (b"first", b"2", b""):
        write_bytes(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_as_readable_as_others(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"")
    (tmp_path / "b").write_bytes(b"")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"}
    assert len(modes) == 1


def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(Path("folder", "file"))
    write_bytes(check_target(tmp_path / "link"), b"a")
    write_bytes(tmp_path / "link", b"b")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "folder" / "file").read_bytes() == b"b"
    (tmp_path / "folder" / "file").unlink()
    (tmp_path / "folder").rmdir()
    with pytest.raises(OutputError):
        check_target(tmp_path / "link")


def test_check_leaves_nothing_and_changes_nothing(tmp_path: Path) -> None:
    assert check_target(tmp_path / "new") == (tmp_path / "new").resolve()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old").write_bytes(b"old")
    check_target(tmp_path / "old")
    assert (tmp_path / "old").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "number"),
    [("missing/a", errno.ENOENT), ("file/a", errno.ENOTDIR), ("folder", errno.EISDIR), ("device", errno.EINVAL)],
)
def test_targets_that_cannot_be_written(tmp_path: Path, name: str, number: int) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/full")
    with pytest.raises(OutputError) as caught:
        check_target(tmp_path / name)
    assert caught.value.errno == number and isinstance(caught.value, OSError)
    assert str(tmp_path) in str(caught.value)


def test_names_that_no_system_takes(tmp_path: Path) -> None:
    for name in ("a\0b", "n" * 300):
        with pytest.raises(OutputError):
            check_target(tmp_path / name)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the administrator may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError) as caught:
            check_target(tmp_path / "a")
    finally:
        tmp_path.chmod(0o700)
    assert caught.value.errno == errno.EACCES


@pytest.mark.parametrize("broken", ["write", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_whatever_fails_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, error: BaseException
) -> None:
    (tmp_path / "a").write_bytes(b"old")

    class Broken:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Any:
            self.file.__enter__()
            return self

        def __exit__(self, *exc: Any) -> None:
            self.file.__exit__(*exc)

        def write(self, content: bytes) -> None:
            self.file.write(content[:1])
            raise error

    def fail(*arguments: Any) -> None:
        raise error

    if broken == "write":
        fdopen = os.fdopen
        monkeypatch.setattr(os, "fdopen", lambda *arguments: Broken(fdopen(*arguments)))
    else:
        monkeypatch.setattr(os, broken, fail)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        write_bytes(tmp_path / "a", b"new")
    if isinstance(caught.value, OutputError):
        assert caught.value.errno == errno.ENOSPC and "3 bytes are needed" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
