"""Methods that are a class with options: their rows, names, public names and configs."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
import json
import pkgutil
from pathlib import Path
from typing import Any

import pytest
import torch

import scoresde
from scoresde import InvalidArgumentError, InvalidTypeError, solvers
from scoresde.solvers import Solver, from_config, make_solver, to_config
from scoresde.solvers.registry.config import to_text
from scoresde.solvers.registry.rows import BY_NAME, ROWS

VARIANTS = [row for row in ROWS if row.options]
METHODS = {m.name: m for m in scoresde.methods()}


def test_a_variant_is_its_class_with_options() -> None:
    sde, target = scoresde.VPSDE(), scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
    for row in VARIANTS:
        cls, general = getattr(solvers, row.title), getattr(solvers, row.cls)
        solver = general(**row.options)
        assert cls() == solver == make_solver(row.name, {}) and type(cls()) is general, row.name
        assert solver.name == cls.name == row.name and solver.aliases == cls.aliases == row.aliases
        assert isinstance(solver, cls) and issubclass(cls, general) and issubclass(cls, Solver), row.name
        assert not isinstance(solvers.DDIM(), cls) and not isinstance(row.name, cls), row.name
        for other in VARIANTS:
            assert isinstance(getattr(solvers, other.title)(), cls) == (other == row), (row.name, other.name)
        assert METHODS[row.name].solver is cls, row.name
        (example,) = doctest.DocTestFinder(recurse=False).find(cls, row.title, globs={row.title: cls})
        assert example.examples and doctest.DocTestRunner(verbose=False).run(example).failed == 0, row.name
        by_name, by_object = (
            scoresde.solve(sde, target.score(sde), shape=(2, 2), method=method, steps=5, seed=0).x
            for method in (row.name, solver)
        )
        assert torch.equal(by_name, by_object), row.name


def test_options_by_place_and_by_name() -> None:
    assert solvers.UniPC2(3) == solvers.UniPC2(order=3) == solvers.UniPC(order=3)
    assert solvers.UniPC2(3, "noise") == solvers.UniPC(3, "noise")
    assert solvers.DPMpp2M(form="taylor") == solvers.DPM2M("data", "taylor")
    with pytest.raises(InvalidArgumentError, match="order"):
        solvers.UniPC2(order=0)


def test_the_name_follows_the_options() -> None:
    assert [solvers.UniPC(order=p).name for p in range(1, 6)] == ["unipc1", "unipc2", "unipc3", "unipc", "unipc"]
    assert [solvers.TAB(order=p).name for p in range(1, 5)] == ["tab", "tab2", "tab3", "tab4"]
    assert solvers.RhoAB(order=1).name == "rho_ab" and solvers.UniP(order=6).name == "unip"
    assert solvers.DPM2M().name == "dpm_2m" and solvers.DPM2M(prediction="data", form="taylor").name == "dpmpp_2m"
    assert dataclasses.replace(solvers.UniPC2(), order=3).name == "unipc3"
    assert [solvers.UniPC.name, solvers.TAB.name, solvers.DPM2M.name] == ["unipc", "tab", "dpm_2m"]
    assert Solver.name == "own" and Solver.aliases == () and solvers.Multistep.name == "own"
    assert BY_NAME["unipc"] is BY_NAME["unipc2"] and BY_NAME["lms"] is BY_NAME["rho_ab4"]  # aliases


def test_a_class_that_is_derived_from_a_variant() -> None:
    @dataclasses.dataclass(frozen=True)
    class Mine(solvers.DPMpp2M):  # type: ignore[misc, valid-type]
        more: int = 1

    assert Mine().prediction == "data" and Mine(more=2).more == 2 and type(Mine()) is Mine
    assert Mine().name == "dpmpp_2m" and Mine(prediction="noise").name == "dpm_2m"
    assert isinstance(Mine(), Mine) and isinstance(Mine(), solvers.DPMpp2M) and issubclass(Mine, solvers.DPM2M)
    assert not isinstance(solvers.DPMpp2M(), Mine)


def test_every_public_name_is_there_and_every_solver_has_a_row_or_a_name() -> None:
    assert solvers.__all__ == sorted(set(solvers.__all__)) and set(solvers.__all__) <= set(dir(solvers))
    for name in solvers.__all__:
        assert getattr(solvers, name) is getattr(solvers, name)
    for row in ROWS:
        cls = METHODS[row.name].solver
        assert getattr(solvers, row.title) is cls and not {"name", "aliases"} & set(vars(cls))  # the row has them
    for module in pkgutil.walk_packages([str(Path(solvers.__file__).parent)], "scoresde.solvers."):
        for cls in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(cls) and cls.__module__ == module.name and issubclass(cls, Solver):
                assert cls.name != "own" or inspect.isabstract(cls) or cls.__subclasses__(), cls


NESTED = solvers.PredictorCorrector(solvers.DPMpp2M(), scoresde.UnderdampedCorrector(snr=0.1))
OPTIONS = [
    solvers.UniPC(order=5),
    solvers.UniPC(order=3, variant="bh1", correct_last=True),
    solvers.UniP(order=4, start_up="published"),
    solvers.TAB(order=1),
    solvers.DPM3M(prediction="data", variant="published"),
    solvers.DPMpp2MSDE(eta=0.5),
    solvers.Restart(((0.2, 1.0, 2, 2), (0.05, 0.1))),
    solvers.PredictorCorrector(solvers.DPMpp2M(form="taylor"), scoresde.UnderdampedCorrector(), order="pc"),
    NESTED,
]


def test_a_solver_comes_back_from_its_config_and_from_its_text() -> None:
    for solver in [*(m.solver() for m in METHODS.values()), *OPTIONS]:
        config = to_config(solver)
        assert set(config) == {"method", "options"} and config["method"] in METHODS, solver
        assert from_config(json.loads(json.dumps(config))) == solver
        if config["method"] not in ("pc", "restart"):
            assert make_solver(config["method"], config["options"]) == solver
    for solver in [s for s in OPTIONS if s.name != "restart"]:
        assert from_config(to_text(solver)) == from_config(repr(solver)) == solver


class Own(solvers.UniPC):
    """A method of one's own has no name by which it could be found again."""


def test_what_no_config_can_say_and_invalid_configs() -> None:
    for solver in (Own(order=2), solvers.Transition()):
        with pytest.raises(InvalidArgumentError, match=type(solver).__name__):
            to_config(solver)
    assert to_text(Own(order=2)) == "Own(order=2)"
    mala = solvers.PredictorCorrector(corrector=scoresde.MALACorrector(lambda x, t: x[:, 0]))
    for solver in (solvers.ERSDE(scale=lambda rho: rho**2), mala):
        with pytest.raises(InvalidArgumentError, match="plain"):
            to_config(solver)
    invalid: list[Any] = [
        {},
        {"method": "unipcc"},
        {"method": "ddim", "steps": 3},
        {"method": "ddim", "options": {"order": 3}},
        {"method": "unipc2", "options": {"order": 0}},
        {"corrector": "langevin", "options": {}},
        {"method": "pc", "options": {"corrector": {"corrector": "langevine"}}},
        {"method": "pc", "options": {"predictor": {"method": "pc"}}},
        "UniPC(order=0)",
        "UniPC(order=print(1))",
    ]
    for config in invalid:
        with pytest.raises((InvalidArgumentError, InvalidTypeError)):
            from_config(config)
