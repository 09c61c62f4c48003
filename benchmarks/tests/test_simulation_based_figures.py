"""The committed figures of `benchmarks.simulation_based`, as the pages on inference tell them, and its parts by closed
forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import simulation_based
from benchmarks._tables import load
from tools import tables

ROOT = Path(__file__).parents[2]
PAGES = {
    page: (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in ("inference", "many_observations")
}
RESULTS: dict[str, Any] = load("simulation_based")["results"]


def test_every_part_is_recorded_and_no_bar_is_missed() -> None:
    assert list(RESULTS) == list(simulation_based.PARTS)
    assert not simulation_based.check(RESULTS)


def test_a_figure_that_is_another_one_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert simulation_based.check(RESULTS | {"predictive": {"mean": 0.3, "standard deviation": 0.29}}) == [
        "predictive: near 1/2"
    ]

    def measured(found: dict[str, float]) -> None:
        part = (lambda quick: found, simulation_based.predictive_bars)
        monkeypatch.setitem(simulation_based.PARTS, "predictive", part)
        simulation_based.main(["--check", "--only", "predictive"])

    measured(RESULTS["predictive"])
    with pytest.raises(SystemExit, match=r"predictive, mean: 0\.3 is not that of the file"):
        measured(RESULTS["predictive"] | {"mean": 0.3})


def span(values: Iterable[float], digits: int = 2, factor: float = 1.0) -> str:
    """The least and the largest of them."""
    found = [factor * value for value in values]
    return f"{min(found):.{digits}f} to {max(found):.{digits}f}"


def of_power() -> list[str]:
    found = RESULTS["power"]["found"]
    factor, shift = ([f"{found[m][name]:.2f}" for m in ("9", "63", "255")] for name in ("factor 0.8", "shift 0.25"))
    return [
        f"with a probability of {factor[0]} from 9 draws, {factor[1]} from 63, and {factor[2]} from 255",
        f"for a shift of 0.25 it is {shift[0]}, {shift[1]} and {shift[2]}.",
    ]


def of_bounds() -> list[str]:
    rows, trained = RESULTS["bounds"]["composed"].values(), RESULTS["bounds"]["trained"]
    width = {kind: span(row[kind]["width"] for row in rows) for kind in ("box", "logit")}
    bias = {kind: f"{max(abs(row[kind]['bias']) for row in rows):.1f}" for kind in ("box", "logit")}
    assert bias["box"] == bias["logit"]
    short, long, logit = (trained[name] for name in ("box, 1500", "box, 6000", "logit, 1500"))
    return [
        f"had {width['box']} times the exact standard deviation in the box, and {width['logit']} times after",
        f"Their means were off by up to {bias['box']} standard deviations in both.",
        f"had {span(short['outside'], 0, 100)} % of their samples outside",
        f"was off by {span(short['error'])} standard deviations of the posterior",
        f"after 6,000 steps it was {span(long['outside'], 0, 100)} %, and {span(long['error'])}.",
        f"networks of logits were off by {span(logit['error'])} standard deviations after 1,500 steps",
    ]


def of_predictive() -> list[str]:
    found = RESULTS["predictive"]
    return [
        f"standard deviation {found['mean']:.2f}, and those of the standard deviation {found['standard deviation']:.2f}"
    ]


def of_outliers() -> list[str]:
    def percent(case: str, kind: str) -> str:
        values = RESULTS["outliers"][case][kind].values()
        return f"{100 * sum(values) / len(values):.0f} %"

    assert percent("two differ", "mahalanobis") == "100 %"
    return [
        f"the nearest neighbour {percent('two differ', 'nearest')} of them",
        f"they found {percent('one shifted', 'mahalanobis')} and {percent('one shifted', 'nearest')}.",
    ]


def of_prior() -> list[str]:
    found = RESULTS["prior"]
    fits = span((row["0.03"] for name, row in found.items() if name.startswith("fit")), 0, 100)
    return [f"of at most {100 * max(found['grid'].values()):.1f} %", f"has an error of {fits} % at 0.03"]


def of_langevin() -> list[str]:
    near, far = (
        [row for row in RESULTS["langevin"] if low < row["product"] < high] for low, high in ((15, 50), (50, 1e9))
    )
    most = math.ceil(100 * max(abs(row["width"] - 1) for row in far))
    products = f"{min(row['product'] for row in near):.0f} to {max(row['product'] for row in near):.0f}"
    return [
        f"too large by {span((row['width'] - 1 for row in near), 0, 100)} % for products of {products}, and "
        f"within {most} % of the exact one",
        f"the random error of these figures is {100 / math.sqrt(2 * 2000):.1f} %",
    ]


def of_sets() -> list[str]:
    few, many = (RESULTS["sets"][n]["composition"] for n in ("5", "20"))
    middle = [sum(found["error"]) / len(found["error"]) for found in (few, many)]
    least = math.floor(100 * min(few["p"])) / 100
    return [
        f"were off by {middle[0]:.1f} standard deviations with 5 trials and by {middle[1]:.1f} with 20",
        f"With 20 trials their composed means were off by {span(many['error'])} standard deviations (the median), and "
        f"100 subjects were enough to find that (p ≤ {max(many['p']):.3f}).",
        f"they were off by {span(few['error'])}, and the test did not find it (p ≥ {least:.2f})",
        f"Of the draws of this test, {span(few['outside'] + many['outside'], 0, 100)} % are outside",
    ]


@pytest.mark.parametrize(
    "statements", [of_power, of_sets, of_langevin, of_bounds, of_predictive, of_outliers, of_prior]
)
def test_numbers_in_sentences_are_those_of_the_file(statements: Callable[[], list[str]]) -> None:
    text = " ".join(" ".join(PAGES.values()).split())
    missing = [statement for statement in statements() if statement not in text]
    assert not missing, missing


def test_tables_are_on_their_pages() -> None:
    for table in (table for page in PAGES for table in tables.FILLED[f"docs/{page}.md"].values()):
        head, line, *rows = [row for row in table().splitlines() if row.startswith("|")]
        assert len(rows) > 1 and {row.count("|") for row in (head, line, *rows)} == {head.count("|")}


@pytest.mark.parametrize("parameters", [1, 12])
def test_calibrated_posteriors_are_rejected_at_the_level(parameters: int) -> None:
    """The level of one of the parameters, up to the 999 simulations of the test's own band and 10,000 of ranks."""
    share = simulation_based.found_share(100, 0.0, 1.0, parameters=parameters)
    rate = 0.05 / parameters
    assert abs(share - rate) < 5 * math.sqrt(rate * (1 / 999 + 1 / simulation_based.SIMULATIONS))


def test_exact_posteriors_of_the_simulator() -> None:
    """Of many trials in the middle of the box, a linear model: its standard deviations by the delta method."""
    y = torch.tensor([[0.5, -0.5]]).expand(50, 2)
    mean, spread = simulation_based.exact_moments(y)
    b = simulation_based.NOISE / 50**0.5
    expected = torch.tensor([0.5 - (0.25 + b**2) / 2, -0.5])
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(spread, torch.tensor([b * 1.25**0.5, b]), rtol=0.01, atol=0)


def test_scores_on_a_grid() -> None:
    """Of a normal prior and likelihood, beside the closed form."""
    grid = torch.linspace(-6, 6, 601, dtype=torch.float64)
    score = simulation_based.GridScore(grid, -0.5 * grid**2, lambda y: -0.5 * (y - grid) ** 2 / 0.25, 0.01)
    x, t, y = torch.tensor([[0.3], [-1.0]]), torch.tensor([0.2, 0.7]), torch.tensor([[1.0], [0.5]])
    x, t, y = x.double(), t.double(), y.double()
    alpha, sigma = (v(t)[:, None].double() for v in (simulation_based.VP.alpha, simulation_based.VP.sigma))
    variance = alpha**2 * (0.2 + 0.01**2) + sigma**2
    torch.testing.assert_close(score(x, t, y), (alpha * 0.8 * y - x) / variance, rtol=1e-6, atol=1e-6)
    single, together = score.weights(y), score.together(y)
    torch.testing.assert_close(single @ grid, 0.8 * y[:, 0], rtol=1e-6, atol=0)
    torch.testing.assert_close(together @ grid, 4 * y.sum() / 9, rtol=1e-6, atol=0)


def test_leaves() -> None:
    assert list(simulation_based.leaves({"a": [1.0, {"b": 2}]})) == [(", a, 0", 1.0), (", a, 1, b", 2)]
