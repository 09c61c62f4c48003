"""Methods that are a class with options: their rows, names, public names, old pickles, and configs."""

from __future__ import annotations

import base64
import dataclasses
import doctest
import importlib
import inspect
import json
import pickle
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import scoresde
from scoresde import InvalidArgumentError, InvalidTypeError, solvers
from scoresde._lazy import lazy
from scoresde.solvers import Solver, from_config, make_solver, to_config
from scoresde.solvers.registry.config import to_text
from scoresde.solvers.registry.rows import BY_NAME, ROWS
from tests.parameters import described

# One instance of each class as version 0.1.0 wrote it, by protocol 4, when every variant was a class of its own.
PICKLES = {
    "TAB2": (
        "gASVXQAAAAAAAACMFXNjb3Jlc2RlLnNvbHZlcnMuZGVpc5SMBFRBQjKUk5QpgZR9lCiMBW9yZGVylEsCjAhzdGFydF91cJSMBnNpbmdsZZSM"
        "EWxvd2VyX29yZGVyX2ZpbmFslIl1Yi4="
    ),
    "TAB3": (
        "gASVXQAAAAAAAACMFXNjb3Jlc2RlLnNvbHZlcnMuZGVpc5SMBFRBQjOUk5QpgZR9lCiMBW9yZGVylEsDjAhzdGFydF91cJSMBnNpbmdsZZSM"
        "EWxvd2VyX29yZGVyX2ZpbmFslIl1Yi4="
    ),
    "TAB4": (
        "gASVXQAAAAAAAACMFXNjb3Jlc2RlLnNvbHZlcnMuZGVpc5SMBFRBQjSUk5QpgZR9lCiMBW9yZGVylEsEjAhzdGFydF91cJSMBnNpbmdsZZSM"
        "EWxvd2VyX29yZGVyX2ZpbmFslIl1Yi4="
    ),
    "RhoAB2": (
        "gASVXwAAAAAAAACMFXNjb3Jlc2RlLnNvbHZlcnMuZGVpc5SMBlJob0FCMpSTlCmBlH2UKIwFb3JkZXKUSwKMCHN0YXJ0X3VwlIwGc2luZ2xl"
        "lIwRbG93ZXJfb3JkZXJfZmluYWyUiXViLg=="
    ),
    "RhoAB3": (
        "gASVXwAAAAAAAACMFXNjb3Jlc2RlLnNvbHZlcnMuZGVpc5SMBlJob0FCM5STlCmBlH2UKIwFb3JkZXKUSwOMCHN0YXJ0X3VwlIwGc2luZ2xl"
        "lIwRbG93ZXJfb3JkZXJfZmluYWyUiXViLg=="
    ),
    "RhoAB4": (
        "gASVXwAAAAAAAACMFXNjb3Jlc2RlLnNvbHZlcnMuZGVpc5SMBlJob0FCNJSTlCmBlH2UKIwFb3JkZXKUSwSMCHN0YXJ0X3VwlIwGc2luZ2xl"
        "lIwRbG93ZXJfb3JkZXJfZmluYWyUiXViLg=="
    ),
    "ERSDE1": (
        "gASVawAAAAAAAACMF3Njb3Jlc2RlLnNvbHZlcnMuZXJfc2RllIwGRVJTREUxlJOUKYGUfZQojAVvcmRlcpRLAYwFc2NhbGWUaACMD3B1Ymxp"
        "c2hlZF9zY2FsZZSTlIwRbG93ZXJfb3JkZXJfZmluYWyUiXViLg=="
    ),
    "ERSDE2": (
        "gASVawAAAAAAAACMF3Njb3Jlc2RlLnNvbHZlcnMuZXJfc2RllIwGRVJTREUylJOUKYGUfZQojAVvcmRlcpRLAowFc2NhbGWUaACMD3B1Ymxp"
        "c2hlZF9zY2FsZZSTlIwRbG93ZXJfb3JkZXJfZmluYWyUiXViLg=="
    ),
    "ERSDE3": (
        "gASVawAAAAAAAACMF3Njb3Jlc2RlLnNvbHZlcnMuZXJfc2RllIwGRVJTREUzlJOUKYGUfZQojAVvcmRlcpRLA4wFc2NhbGWUaACMD3B1Ymxp"
        "c2hlZF9zY2FsZZSTlIwRbG93ZXJfb3JkZXJfZmluYWyUiXViLg=="
    ),
    "UniP2": (
        "gASVgwAAAAAAAACMFnNjb3Jlc2RlLnNvbHZlcnMudW5pcGOUjAVVbmlQMpSTlCmBlH2UKIwFb3JkZXKUSwKMCnByZWRpY3Rpb26UjARkYXRh"
        "lIwHdmFyaWFudJSMA2JoMpSMCHN0YXJ0X3VwlIwGc2luZ2xllIwRbG93ZXJfb3JkZXJfZmluYWyUiXViLg=="
    ),
    "UniP3": (
        "gASVgwAAAAAAAACMFnNjb3Jlc2RlLnNvbHZlcnMudW5pcGOUjAVVbmlQM5STlCmBlH2UKIwFb3JkZXKUSwOMCnByZWRpY3Rpb26UjARkYXRh"
        "lIwHdmFyaWFudJSMA2JoMpSMCHN0YXJ0X3VwlIwGc2luZ2xllIwRbG93ZXJfb3JkZXJfZmluYWyUiXViLg=="
    ),
    "UniPC1": (
        "gASVlAAAAAAAAACMFnNjb3Jlc2RlLnNvbHZlcnMudW5pcGOUjAZVbmlQQzGUk5QpgZR9lCiMBW9yZGVylEsBjApwcmVkaWN0aW9ulIwEZGF0"
        "YZSMB3ZhcmlhbnSUjANiaDKUjAhzdGFydF91cJSMBnNpbmdsZZSMEWxvd2VyX29yZGVyX2ZpbmFslImMDGNvcnJlY3RfbGFzdJSJdWIu"
    ),
    "UniPC2": (
        "gASVlAAAAAAAAACMFnNjb3Jlc2RlLnNvbHZlcnMudW5pcGOUjAZVbmlQQzKUk5QpgZR9lCiMBW9yZGVylEsCjApwcmVkaWN0aW9ulIwEZGF0"
        "YZSMB3ZhcmlhbnSUjANiaDKUjAhzdGFydF91cJSMBnNpbmdsZZSMEWxvd2VyX29yZGVyX2ZpbmFslImMDGNvcnJlY3RfbGFzdJSJdWIu"
    ),
    "UniPC3": (
        "gASVlAAAAAAAAACMFnNjb3Jlc2RlLnNvbHZlcnMudW5pcGOUjAZVbmlQQzOUk5QpgZR9lCiMBW9yZGVylEsDjApwcmVkaWN0aW9ulIwEZGF0"
        "YZSMB3ZhcmlhbnSUjANiaDKUjAhzdGFydF91cJSMBnNpbmdsZZSMEWxvd2VyX29yZGVyX2ZpbmFslImMDGNvcnJlY3RfbGFzdJSJdWIu"
    ),
    "DPMpp2S": (
        "gASVaAAAAAAAAACMH3Njb3Jlc2RlLnNvbHZlcnMuZHBtX3NpbmdsZXN0ZXCUjAdEUE1wcDJTlJOUKYGUfZQojApwcmVkaWN0aW9ulIwEZGF0"
        "YZSMBGZvcm2UjAZ0YXlsb3KUjAFylEc/4AAAAAAAAHViLg=="
    ),
    "DPMpp3S": (
        "gASVaQAAAAAAAACMH3Njb3Jlc2RlLnNvbHZlcnMuZHBtX3NpbmdsZXN0ZXCUjAdEUE1wcDNTlJOUKYGUfZQojApwcmVkaWN0aW9ulIwEZGF0"
        "YZSMBGZvcm2UjAZ0YXlsb3KUjAJyMZRHP9VVVVVVVVV1Yi4="
    ),
    "DPMpp2M": (
        "gASVhgAAAAAAAACMHnNjb3Jlc2RlLnNvbHZlcnMuZHBtX211bHRpc3RlcJSMB0RQTXBwMk2Uk5QpgZR9lCiMCnByZWRpY3Rpb26UjARkYXRh"
        "lIwEZm9ybZSMCWRwbXNvbHZlcpSMCHN0YXJ0X3VwlIwGc2luZ2xllIwRbG93ZXJfb3JkZXJfZmluYWyUiXViLg=="
    ),
    "DPMpp3M": (
        "gASViQAAAAAAAACMHnNjb3Jlc2RlLnNvbHZlcnMuZHBtX211bHRpc3RlcJSMB0RQTXBwM02Uk5QpgZR9lCiMCnByZWRpY3Rpb26UjARkYXRh"
        "lIwHdmFyaWFudJSMCWNvcnJlY3RlZJSMCHN0YXJ0X3VwlIwGc2luZ2xllIwRbG93ZXJfb3JkZXJfZmluYWyUiXViLg=="
    ),
    "RhoHeun": "gASVMwAAAAAAAACMIHNjb3Jlc2RlLnNvbHZlcnMucmhvX3J1bmdlX2t1dHRhlIwHUmhvSGV1bpSTlCmBlC4=",
    "RhoMidpoint": "gASVNwAAAAAAAACMIHNjb3Jlc2RlLnNvbHZlcnMucmhvX3J1bmdlX2t1dHRhlIwLUmhvTWlkcG9pbnSUk5QpgZQu",
    "RhoRK4": "gASVMgAAAAAAAACMIHNjb3Jlc2RlLnNvbHZlcnMucmhvX3J1bmdlX2t1dHRhlIwGUmhvUks0lJOUKYGULg==",
}
# UniPC2(variant="bh1", order=4), and pc with the predictor DPMpp2M(form="taylor"), likewise.
CHANGED = (
    "gASVlAAAAAAAAACMFnNjb3Jlc2RlLnNvbHZlcnMudW5pcGOUjAZVbmlQQzKUk5QpgZR9lCiMBW9yZGVylEsEjApwcmVkaWN0aW9ulIwEZGF0"
    "YZSMB3ZhcmlhbnSUjANiaDGUjAhzdGFydF91cJSMBnNpbmdsZZSMEWxvd2VyX29yZGVyX2ZpbmFslImMDGNvcnJlY3RfbGFzdJSJdWIu"
)
NESTED = (
    "gASVXAEAAAAAAACMJHNjb3Jlc2RlLnNvbHZlcnMucHJlZGljdG9yX2NvcnJlY3RvcpSMElByZWRpY3RvckNvcnJlY3RvcpSTlCmBlH2UKIwJ"
    "cHJlZGljdG9ylIwec2NvcmVzZGUuc29sdmVycy5kcG1fbXVsdGlzdGVwlIwHRFBNcHAyTZSTlCmBlH2UKIwKcHJlZGljdGlvbpSMBGRhdGGU"
    "jARmb3JtlIwGdGF5bG9ylIwIc3RhcnRfdXCUjAZzaW5nbGWUjBFsb3dlcl9vcmRlcl9maW5hbJSJdWKMCWNvcnJlY3RvcpSMHHNjb3Jlc2Rl"
    "LmNvcnJlY3RvcnMubGFuZ2V2aW6UjBFMYW5nZXZpbkNvcnJlY3RvcpSTlCmBlH2UKIwDc25ylEc/xHrhR64Ue4wFbW92ZXOUSwGMBHJ1bGWU"
    "jAVzaWdtYZSMBWNoYWlulE51YowFb3JkZXKUjAJjcJR1Yi4="
)
VARIANTS = [row for row in ROWS if row.options]
variants = pytest.mark.parametrize("row", VARIANTS, ids=lambda row: row.name)
METHODS = {m.name: m for m in scoresde.methods()}


def load(text: str) -> Any:
    return pickle.loads(base64.b64decode(text))


@pytest.mark.parametrize("title", PICKLES)
def test_an_old_pickle_gives_the_same_solver(title: str) -> None:
    solver = load(PICKLES[title])
    assert solver == getattr(solvers, title)() and type(solver) is type(getattr(solvers, title)())
    assert solver.name == getattr(solvers, title).name
    assert pickle.loads(pickle.dumps(solver)) == solver


def test_old_pickles_with_options_and_in_one_another() -> None:
    assert load(CHANGED) == solvers.UniPC(order=4, variant="bh1")
    assert load(NESTED) == solvers.PredictorCorrector(solvers.DPM2M(prediction="data", form="taylor"))


def test_no_variant_lacks_its_old_pickle() -> None:
    assert {row.title for row in VARIANTS} <= set(PICKLES)


@variants
def test_a_variant_is_its_class_with_options(row: Any) -> None:
    cls, general = getattr(solvers, row.title), getattr(solvers, row.cls)
    solver = general(**row.options)
    assert cls() == solver == make_solver(row.name, {}) and type(cls()) is general and hash(cls()) == hash(solver)
    assert solver.name == cls.name == row.name and solver.aliases == cls.aliases == row.aliases
    assert isinstance(solver, cls) and issubclass(cls, general) and issubclass(cls, Solver)
    assert not isinstance(solvers.DDIM(), cls) and not isinstance(row.name, cls)
    for other in VARIANTS:
        assert isinstance(getattr(solvers, other.title)(), cls) == (other == row)
    assert METHODS[row.name].solver is cls
    assert cls is getattr(importlib.import_module(cls.__module__), cls.__name__)
    assert pickle.loads(pickle.dumps(cls)) is cls
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    assert {name: defaults[name] for name in row.options} == row.options
    assert [p.default for p in inspect.signature(cls).parameters.values()] == list(defaults.values())


def test_options_by_place_and_by_name() -> None:
    assert solvers.UniPC2(3) == solvers.UniPC2(order=3) == solvers.UniPC(order=3)
    assert solvers.UniPC2(3, "noise") == solvers.UniPC(3, "noise")
    assert solvers.DPMpp2M(form="taylor") == solvers.DPM2M("data", "taylor")
    for wrong in ((2, "data", "bh2", "single", False, False, 1), ("data",)):
        with pytest.raises(TypeError):
            solvers.UniPC2(*wrong)
    with pytest.raises(TypeError, match="unexpected keyword"):
        solvers.UniPC2(ordr=3)
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


def test_a_class_that_is_derived_from_a_variant() -> None:
    @dataclasses.dataclass(frozen=True)
    class Mine(solvers.DPMpp2M):  # type: ignore[misc, valid-type]
        more: int = 1

    assert Mine().prediction == "data" and Mine(more=2).more == 2 and type(Mine()) is Mine
    assert Mine().name == "dpmpp_2m" and Mine(prediction="noise").name == "dpm_2m"
    assert isinstance(Mine(), Mine) and isinstance(Mine(), solvers.DPMpp2M) and issubclass(Mine, solvers.DPM2M)
    assert not isinstance(solvers.DPMpp2M(), Mine)

    class Named(solvers.UniPC2):  # type: ignore[misc, valid-type]
        name = "mine"

    assert Named().name == Named.name == "mine" and Named().order == 2 and type(Named()) is Named


@variants
def test_the_examples_of_a_variant_run(row: Any) -> None:
    cls = getattr(solvers, row.title)
    (example,) = doctest.DocTestFinder(recurse=False).find(cls, row.title, globs={row.title: cls})
    assert example.examples and doctest.DocTestRunner(verbose=False).run(example).failed == 0


def test_every_public_name_is_there() -> None:
    assert solvers.__all__ == sorted(set(solvers.__all__)) and set(solvers.__all__) <= set(dir(solvers))
    for name in solvers.__all__:
        assert getattr(solvers, name) is getattr(solvers, name)
    for row in ROWS:
        cls = METHODS[row.name].solver
        assert getattr(solvers, row.title) is cls and not {"name", "aliases"} & set(vars(cls))  # the row has them
    find, _ = lazy("scoresde.solvers", {})
    assert find("seeds") is importlib.import_module("scoresde.solvers.seeds")
    with pytest.raises(AttributeError, match="UniPC9"):
        getattr(solvers, "UniPC9")  # noqa: B009
    with pytest.raises(ImportError, match="TAB9"):
        from scoresde.solvers.deis import TAB9  # type: ignore[attr-defined]  # noqa: F401


def test_every_solver_of_the_package_has_a_row_or_a_name() -> None:
    folder = Path(solvers.__file__).parent
    for module in pkgutil.walk_packages([str(folder)], "scoresde.solvers."):
        for cls in vars(importlib.import_module(module.name)).values():
            own = inspect.isclass(cls) and cls.__module__ == module.name
            if own and issubclass(cls, Solver):
                assert cls.name != "own" or inspect.isabstract(cls) or cls.__subclasses__(), cls


def test_names_are_listed_without_torch() -> None:
    code = (
        "import sys, types\n"
        "package = types.ModuleType('scoresde')\n"
        f"package.__path__ = [{str(Path(scoresde.__file__).parent)!r}]\n"
        "sys.modules['scoresde'] = package\n"
        "from scoresde.solvers.registry.rows import BY_NAME\n"
        "print(len(BY_NAME), [name for name in ('torch', 'numpy', 'scipy') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split(maxsplit=1) == [str(len(METHODS)), "[]\n"]


OPTIONS = [
    solvers.UniPC(order=5),
    solvers.UniPC(order=3, variant="bh1", correct_last=True),
    solvers.UniP(order=4, start_up="published"),
    solvers.TAB(order=1),
    solvers.RhoAB(order=3, lower_order_final=True),
    solvers.DPM3M(prediction="data", variant="published"),
    solvers.DPMpp2MSDE(eta=0.5),
    solvers.Restart(((0.2, 1.0, 2, 2), (0.05, 0.1))),
    solvers.EDM(s_churn=3.0),
    solvers.AnnealedLangevin(epsilon=1e-5),
    solvers.PredictorCorrector(solvers.DPMpp2M(form="taylor"), scoresde.UnderdampedCorrector(), order="pc"),
    solvers.PredictorCorrector(corrector=scoresde.MALACorrector(lambda x, t: x[:, 0])),
]


@pytest.mark.parametrize("solver", [*(m.solver() for m in METHODS.values()), *OPTIONS[:-1]], ids=lambda s: s.name)
def test_a_solver_comes_back_from_its_config(solver: Solver) -> None:
    config = to_config(solver)
    assert set(config) == {"method", "options"} and config["method"] in METHODS
    assert from_config(json.loads(json.dumps(config))) == solver
    if config["method"] not in ("pc", "restart"):
        assert make_solver(config["method"], config["options"]) == solver


@pytest.mark.parametrize("solver", OPTIONS[:7], ids=to_text)
def test_a_solver_comes_back_from_its_text(solver: Solver) -> None:
    assert from_config(to_text(solver)) == from_config(repr(solver)) == solver


def test_what_a_config_says() -> None:
    assert to_config(solvers.UniPC2()) == {"method": "unipc2", "options": {}} == to_config(solvers.UniPC(order=2))
    assert to_config(solvers.UniP(order=4)) == {"method": "unip2", "options": {"order": 4}}
    nested = solvers.PredictorCorrector(solvers.DPMpp2M(), scoresde.UnderdampedCorrector(snr=0.1))
    assert to_config(nested)["options"] == {
        "predictor": {"method": "dpmpp_2m", "options": {}},
        "corrector": {"corrector": "underdamped", "options": {"snr": 0.1}},
    }
    assert from_config(repr(nested)) == from_config(to_text(nested)) == nested
    assert from_config({"method": "pc", "options": {"predictor": "ddim", "snr": 0.1}}).predictor == solvers.DDIM()  # type: ignore[attr-defined]
    assert from_config({"method": "unipc"}) == solvers.UniPC2()
    assert [to_text(s) for s in (solvers.UniPC2(), solvers.UniPC(), solvers.TAB(order=1), solvers.DDIM())] == [
        "UniPC2()",
        "UniPC3()",
        "TAB(order=1)",
        "DDIM()",
    ]


class Own(solvers.UniPC):
    """A method of one's own has no name by which it could be found again."""


def test_what_no_config_can_say() -> None:
    for solver in (Own(order=2), solvers.Transition()):
        with pytest.raises(InvalidArgumentError, match=type(solver).__name__):
            to_config(solver)
    assert to_text(Own(order=2)) == "Own(order=2)"
    for solver in (solvers.ERSDE(scale=lambda rho: rho**2), OPTIONS[-1]):
        with pytest.raises(InvalidArgumentError, match="plain"):
            to_config(solver)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"method": "unipcc"},
        {"method": "auto"},
        {"method": 3},
        {"method": "ddim", "steps": 3},
        {"method": "ddim", "options": 3},
        {"method": "ddim", "options": {"order": 3}},
        {"method": "unipc2", "options": {"order": 0}},
        {"corrector": "langevin", "options": {}},
        {"method": "pc", "options": {"corrector": {"corrector": "langevine"}}},
        {"method": "pc", "options": {"corrector": {"corrector": "mala"}}},
        {"method": "pc", "options": {"corrector": {"corrector": ["langevin"]}}},
        {"method": "pc", "options": {"predictor": {"method": "pc"}}},
        ["ddim"],
        None,
        "unipc",
        "UniPC(2)",
        "UniPC(order=0)",
        "Solver()",
        "LangevinCorrector()",
        "solvers.DDIM()",
        "UniPC(order=print(1))",
        "UniPC(**{'order': 2})",
    ],
    ids=described,
)
def test_configs_of_nothing(config: Any) -> None:
    with pytest.raises((InvalidArgumentError, InvalidTypeError)):
        from_config(config)


def test_the_results_are_those_of_the_class() -> None:
    sde, target = scoresde.VPSDE(), scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
    for row in VARIANTS:
        by_name, by_object = (
            scoresde.solve(sde, target.score(sde), shape=(2, 2), method=method, steps=5, seed=0).x
            for method in (row.name, getattr(solvers, row.cls)(**row.options))
        )
        assert torch.equal(by_name, by_object)


def test_aliases_are_the_same_rows() -> None:
    assert BY_NAME["unipc"] is BY_NAME["unipc2"] and BY_NAME["lms"] is BY_NAME["rho_ab4"]
