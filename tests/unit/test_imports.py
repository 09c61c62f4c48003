"""`import scoresde` imports nothing heavy, and every public name is the same object however it is reached."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import scoresde

ROOT = Path(scoresde.__file__).parent
HEAVY = ("torch", "numpy", "scipy", "PIL", "tqdm", "safetensors", "torchdiffeq", "torchsde", "matplotlib", "sklearn")


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def checked_imports() -> dict[str, str]:
    """``{name: module}`` of what type checkers see of the package; a module is itself in ``.``."""
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: node.module or "." for node in imports for alias in node.names}


def test_type_checkers_and_python_see_the_same_names() -> None:
    seen = checked_imports()
    assert {name: home for name, home in seen.items() if home != "."} == {**scoresde._HOMES, **scoresde._MOVED}
    assert sorted(seen) == sorted([*scoresde.__all__, *scoresde._MOVED])
    assert set(scoresde.__all__) <= set(dir(scoresde)) and len(scoresde.__all__) <= 60


def test_names_that_have_moved_are_found_in_both_places() -> None:
    code = """
import importlib, scoresde
shown = set(dir(scoresde))
for name, home in scoresde._MOVED.items():
    assert name not in shown and home.partition(".")[0] in shown, name
    module = importlib.import_module(f"scoresde.{home}")
    assert getattr(scoresde, name) is getattr(module, name), name
    assert name in getattr(module, "__all__", [name]), name
"""
    fresh(code)


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert fresh(f"import sys, scoresde; print(sorted({set(HEAVY)} & set(sys.modules)))").strip() == "[]"


def test_importing_every_module_leaves_every_public_name_what_it_was() -> None:
    """An import of a submodule sets it on its package, in the place of what has the same name."""
    code = """
import importlib, pkgutil, types, scoresde

def modules():
    for found in pkgutil.walk_packages(scoresde.__path__, "scoresde."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)

first = {}
for module in modules():
    for name in getattr(module, "__all__", ()):
        first[module, name] = getattr(module, name)
assert len(first) > 400, len(first)
for (module, name), value in first.items():
    assert getattr(module, name) is value, (module, name)
for name in [*scoresde.__all__, *scoresde._MOVED]:
    value = getattr(scoresde, name)
    home = {**scoresde._HOMES, **scoresde._MOVED}.get(name)
    if home is None:
        assert isinstance(value, types.ModuleType) and value.__name__ == f"scoresde.{name}", name
    else:
        assert value is getattr(importlib.import_module(f"scoresde.{home}"), name), name
        assert not isinstance(value, types.ModuleType), name
"""
    fresh(code)


def test_names_that_are_used_first_survive_imports() -> None:
    code = """
import importlib, scoresde
names = {name: getattr(scoresde, name) for name in scoresde.__all__}
for home in {*scoresde._HOMES.values()}:
    importlib.import_module(f"scoresde.{home}")
assert all(getattr(scoresde, name) is value for name, value in names.items())
"""
    fresh(code)


@pytest.mark.slow
def test_every_module_of_the_package_can_be_imported_first() -> None:
    """The order of imports follows from use, so no module may need that another one came before."""
    code = """
import importlib, pkgutil, sys, torch, scoresde
for name in [found.name for found in pkgutil.iter_modules(scoresde.__path__, "scoresde.")]:
    for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == "scoresde"]:
        del sys.modules[loaded]
    if not name.endswith("__main__"):
        importlib.import_module(name)
"""
    fresh(code)


def test_modules_are_attributes_and_unknown_names_are_refused() -> None:
    assert isinstance(scoresde.likelihood, ModuleType) and isinstance(scoresde.sdes, ModuleType)
    for name in ("slove", "__wrapped__", "__main__", "solve.solve"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
            getattr(scoresde, name)
    with pytest.raises(ImportError, match="slove"):
        from scoresde import slove  # noqa: F401


@pytest.mark.parametrize(
    "place",
    [
        "scoresde.integrate.Solution",
        "scoresde.integrate.Status",
        "scoresde.sdes.vp.VPSDE",
        "scoresde.errors.OutputError",
        "scoresde.check.ScoreReport",
        "scoresde.tilted.TiltedSamples",
        "scoresde.sdes.forms.ReverseSDE",
        "scoresde.solvers.registry.Method",
        "scoresde.solvers.transition.Transition",
        "scoresde.solvers.particles.ParticleLog",
        "scoresde.solvers.runge_kutta.Tableau",
        "scoresde.solvers.exponential_runge_kutta.PhiTableau",
        "scoresde.solvers.multistep.Multistep",
        "scoresde.training.digits.DigitsSplit",
    ],
)
def test_pickles_by_reference_are_found(place: str) -> None:
    module, _, name = place.rpartition(".")
    found = pickle.loads(f"c{module}\n{name}\n.".encode())
    homes = (scoresde, scoresde.solvers, scoresde.training)
    assert found is next(getattr(home, name) for home in homes if hasattr(home, name))


def test_the_score_of_a_target_from_an_earlier_pickle_knows_its_process() -> None:
    target, sde = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)), scoresde.VPSDE()
    score = object.__new__(scoresde.targets.ExactScore)
    score.__setstate__({"denoise": target._estimate, "sde": sde, "event_shape": (2,)})
    assert score.sde is sde and score.event_shape == (2,) and score.traits.rowwise
    x = torch.ones(3, 2)
    assert torch.equal(score(x, 0.5), target.score(sde)(x, 0.5))


@pytest.mark.parametrize(
    "name", ["BetaChain", "NoiseScales", "_MonotoneCurve", "_Nearest", "_Tables", "_sigma", "_leading", "_linspace"]
)
def test_parts_of_chains_are_found_where_earlier_pickles_have_them(name: str) -> None:
    found = pickle.loads(f"cscoresde.discrete\n{name}\n.".encode())
    assert found.__module__.startswith("scoresde.chains.") and found.__name__.strip("_") == name.strip("_")


def test_public_classes_and_functions_are_pickled_by_reference() -> None:
    for name in scoresde._HOMES:
        value = getattr(scoresde, name)
        assert pickle.loads(pickle.dumps(value)) is value, name


def test_a_class_that_needs_a_package_says_so_when_it_is_used() -> None:
    fresh(
        """
import sys
sys.modules["diffusers"] = None  # as if it were not installed
from scoresde.interop import *
for make in (DiffusersScheduler, lambda: DiffusersScheduler.from_config({"_class_name": "DDIMScheduler"})):
    try:
        make()
    except ImportError as error:
        assert str(error) == "DiffusersScheduler needs diffusers: pip install 'scoresde[diffusers]'.", error
    else:
        raise AssertionError
"""
    )
