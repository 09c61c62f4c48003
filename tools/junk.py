"""Junk in place of every argument of every public function: it must be refused by an error of the package, or work.

Functions, constructors, methods and commands are found by walking the public names, and their arguments by their
signatures. Each argument is replaced by each junk value while the others are valid, and pairs of arguments are replaced
at random. A value that is not refused must give finite numbers, or a status. A public name of which no valid call is
known fails the sweep: `tools._junk_values.VALID` has what its arguments are.

Each case runs in a child process with a time limit and a memory limit; a child that hangs or dies is replaced.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import functools
import importlib.util
import inspect
import io
import itertools
import multiprocessing
import os
import queue
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import scoresde
from benchmarks._record import write
from benchmarks._tables import load
from scoresde.core.errors import ScoreSDEError, ScoreSDEWarning
from tools._junk_values import JUNK, RETURNED, VALID, WORDS, Make, Own, Returns

WATCHDOG = 20.0  # seconds of processor time per case
WAIT = 120.0  # seconds in all
MEMORY = 6 << 30  # bytes of address space of a child
QUICK = 2000  # inputs of --check
PAIRS = 0.1  # of the number of single replacements
BAD = ("foreign", "silent", "watchdog", "crash", "no baseline")  # what fails the sweep
# What children begin with: all that takes long to import.
LOADED = [
    *("tools.junk", "scoresde.cli", "torch._dynamo", "scipy.optimize", "scipy.integrate", "scipy.stats"),
    *("matplotlib.pyplot", "PIL.Image", "sklearn.datasets", "sklearn.mixture", "torchdiffeq", "torchsde"),
]

TINY, HUGE = 1e-30, 1e30  # beyond these, and for NaN, a function that is no constructor may return infinity or NaN,
TIMES = ("t", "s", "log_snr")  # and so may a function of time at any time: it has limits and poles
# What implements one of these is called by the package, with arguments that the package has made; likewise methods that
# take a record of the loop.
PROTOCOLS = (
    scoresde.solvers.Solver,
    scoresde.Corrector,
    scoresde.Noise,
    scoresde.core.controllers.Controller,
    scoresde.inverse.Rule,
    scoresde.inverse.Known,
    scoresde.losses.Times,
    nn.Module,
)
RECORDS = {"Node", "Known", "Process"}
# Results that their documentation allows to be infinite or NaN: no limit; an error of 0.
UNLIMITED = {"training.Recipe": {".clip"}, "testing.order": {""}, "testing.slopes": {"[0]"}}
# Values that are no junk, but ask for work without end.
ENDLESS = {name: {"10**9", "2**31"} for name in ("generate.count", "generation.compute.count")}
# What the loop and the wrappers call at each evaluation, or to ask a part what it can do.
INSIDE = (
    *("accepts", "ask", "covary", "forward", "inverse", "label", "limit", "linear", "node", "nodes", "noisy"),
    *("direct", "filter", "mix", "part", "pull", "scale", "solvable", "tangent", "trace"),
)


class Target(NamedTuple):
    """Something public that can be called, and what it is called with.

    Attributes:
        call: takes the arguments by name.
        valid: makes a valid value of each argument that is given one.
        names: of the arguments that junk replaces.
    """

    call: Callable[..., Any]
    valid: dict[str, Make]
    names: tuple[str, ...]


class Case(NamedTuple):
    """A target's name, and the junk of its arguments."""

    target: str
    junk: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        given = ", ".join(
            f"{name}={ascii(value)[1:-1]}" for name, value in self.junk
        )  # of texts that are no Unicode, too
        return f"{self.target}({given})"


class Outcome(NamedTuple):
    """What came of a case: ok, typed, or one of `BAD`, or memory; and the first line of an error."""

    kind: str
    detail: str = ""


# The public names


NEEDS = {"interop.DiffusersScheduler": "diffusers"}  # a package without which it cannot be called


def has_package(name: str) -> bool:
    """Whether a public name can be called with the packages that are here."""
    return name not in NEEDS or importlib.util.find_spec(NEEDS[name]) is not None


def public() -> dict[str, Any]:
    """Every public function and class by its shortest dotted name, found through ``__all__``."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    waiting = collections.deque([("", scoresde)])
    while waiting:
        prefix, module = waiting.popleft()
        for name in [*module.__all__, *(scoresde._MOVED if module is scoresde else ())]:
            value = getattr(module, name)
            if id(value) in seen:
                continue
            seen.add(id(value))
            if inspect.ismodule(value):
                waiting.append((f"{prefix}{name}.", value))
            elif (inspect.isclass(value) or inspect.isfunction(value)) and has_package(prefix + name):
                found[prefix + name] = value
    return found


def is_record(cls: type) -> bool:
    """Whether a class only keeps what it is given: an exception, an enumeration, a named tuple, a protocol, or a data
    class that checks nothing."""
    bare = dataclasses.is_dataclass(cls) and not hasattr(cls, "__post_init__")
    kept = bare and "__init__" in vars(cls)
    return kept or issubclass(cls, BaseException | tuple | int) or getattr(cls, "_is_protocol", False)


def constructor(cls: type) -> Any:
    """What makes the objects of a class; data classes that share their fields and their checks share it."""
    check = getattr(cls, "__post_init__", None)
    return cls if check is None else (check, tuple(inspect.signature(cls).parameters))


def methods(cls: type) -> Iterator[tuple[str, Any]]:
    """The methods of a class that are its users' to call."""
    for name in dir(cls):
        raw = inspect.getattr_static(cls, name)
        made = isinstance(raw, classmethod | staticmethod)
        function = raw.__func__ if made else raw
        if name.startswith("_") or name in INSIDE or not isinstance(function, types.FunctionType):
            continue
        field = name in getattr(cls, "__dataclass_fields__", ())
        if field or not function.__module__.startswith("scoresde") or (issubclass(cls, PROTOCOLS) and not made):
            continue
        taken = list(inspect.signature(function).parameters.values())[0 if isinstance(raw, staticmethod) else 1 :]
        if taken and not any(str(p.annotation).strip("'") in RECORDS for p in taken):
            yield name, function


def valid(target: str, parameter: inspect.Parameter) -> Make | None:
    """What makes a valid value of an argument, or None if it keeps its default."""
    name, annotation = parameter.name, str(parameter.annotation)
    keys = [f"{target}.{name}", f"{name}: {annotation}", name, f": {annotation}"]
    wanted = keys if parameter.default is parameter.empty else keys[:1]
    return next((VALID[key] for key in wanted if key in VALID), None)


def arguments(name: str, function: Callable[..., Any], bound: bool) -> tuple[dict[str, Make], tuple[str, ...]]:
    """The valid values and the names of all arguments.

    Raises:
        LookupError: an argument without a default has no valid value.
    """
    taken = list(inspect.signature(function).parameters.values())[1 if bound else 0 :]
    others = {key.rpartition(".")[2]: make for key, make in VALID.items() if key.rpartition(".")[0] == name}
    makes: dict[str, Make] = {}
    for parameter in taken:
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        make = valid(name, parameter)
        if make is not None:
            makes[parameter.name] = make
        elif parameter.default is parameter.empty:
            raise LookupError(f"VALID has no value for `{parameter.name}: {parameter.annotation}`")
    if any(p.kind is p.VAR_KEYWORD for p in taken):
        makes |= others
    names = [p.name for p in taken if p.kind is not p.VAR_KEYWORD and not p.name.startswith("_")]
    return makes, tuple(dict.fromkeys([*names, *makes]))


def called(function: Callable[..., Any], /, **given: Any) -> Any:
    """Call a function with its arguments by name, those of ``*args`` too."""
    spread = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.VAR_POSITIONAL]
    rest = [given.pop(name) for name in spread]
    return function(*rest, **given)


def method(make: Make, name: str, /, **given: Any) -> Any:
    """Call a method of a new object."""
    return getattr(make(), name)(**given)


@functools.cache
def targets() -> tuple[dict[str, Target], dict[str, str]]:
    """Everything that is swept, and why the rest of what is public cannot be."""
    found: dict[str, Target] = {}
    missing: dict[str, str] = {}
    seen: set[Any] = set()

    def add(name: str, call: Callable[..., Any], function: Callable[..., Any], bound: bool = False) -> None:
        try:
            found[name] = Target(call, *arguments(name, function, bound))
        except LookupError as error:
            missing[name] = str(error)

    for name, value in sorted(public().items(), key=lambda item: len(getattr(item[1], "__mro__", ()))):
        if inspect.isfunction(value):
            add(name, functools.partial(called, value), value)
            continue
        made = not inspect.isabstract(value) and not is_record(value)
        if made and constructor(value) not in seen:
            seen.add(constructor(value))
            add(name, value, value)
        if inspect.isabstract(value) or getattr(value, "_is_protocol", False):
            continue
        for own, function in methods(value):
            if function in seen:
                continue
            seen.add(function)
            full, raw = f"{name}.{own}", inspect.getattr_static(value, own)
            if isinstance(raw, classmethod | staticmethod):
                add(full, getattr(value, own), function, isinstance(raw, classmethod))
                continue
            maker = VALID.get(f"self: {full}") or VALID.get(f"self: {name}")
            if maker is None and not made:
                missing[full] = f"VALID has no `self: {name}`"
            else:
                add(full, functools.partial(method, maker or functools.partial(baseline, name), own), function, True)
    return found | commands(), missing


def baseline(name: str) -> Any:
    """The object that valid arguments give."""
    target = targets()[0][name]
    return target.call(**{key: make() for key, make in target.valid.items()})


# The commands


def command(name: str, parameters: dict[str, Any], /, **words: Any) -> None:
    """Run a command of the command line in this process.

    Raises:
        SystemExit: as the command ends.
    """
    import typer

    from scoresde.cli import app

    line = [name]
    for key, word in words.items():
        given = [word] * parameters[key].nargs
        line += given if parameters[key].param_type_name == "argument" else [parameters[key].opts[-1], *given]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            typer.main.get_command(app)(line)
        except SystemExit as end:
            raise SystemExit(end.code, errors.getvalue()) from None


def commands() -> dict[str, Target]:
    """The commands, with their registered parameters."""
    import typer

    from scoresde.cli import app

    found = {}
    for name, made in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        parameters = {p.name: p for p in made.params if not getattr(p, "is_flag", False)}
        keys = {key: (f"cli.{name}.{key}", f"cli.{key}") for key in parameters}
        makes = {key: VALID[full] for key, known in keys.items() for full in known[::-1] if full in VALID}
        found[f"cli.{name}"] = Target(functools.partial(command, name, parameters), makes, tuple(parameters))
    return found


# One case


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:300]


def of_caller(error: BaseException) -> bool:
    """Whether an exception is of the caller's own function, or is Python's when that function was called."""
    return isinstance(error, Own) or "<lambda>() takes" in str(error)


def of_memory(error: BaseException | str) -> bool:
    texts = ("can't allocate memory", "bad_alloc", "Unable to allocate", "too little memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(t in str(error) for t in texts)


def ended(end: SystemExit) -> Outcome:
    """What the exit of a command means."""
    code, errors = end.code if isinstance(end.code, tuple) else (end.code, "")
    code, errors = end.args if len(end.args) == 2 else (code, errors)
    if code in (None, 0):
        return Outcome("ok")
    if code in (2, 3, 4, 5):
        return Outcome("typed")
    line = (str(errors).strip().splitlines() or [""])[-1][:300]
    return Outcome("memory" if of_memory(str(errors)) else "foreign", f"exit code {code}: {line}")


def not_finite(value: Any, path: str = "", depth: int = 0) -> Iterator[str]:
    """Where NaN or infinity is in a result."""
    if depth > 4:
        return
    if isinstance(value, float | complex | np.generic | np.ndarray):
        if np.asarray(value).dtype.kind in "fc" and not np.isfinite(value).all():
            yield path
    elif isinstance(value, Tensor):
        real = value.dtype.is_floating_point or value.dtype.is_complex
        if real and not bool(torch.isfinite(value.detach().to(torch.complex128)).all()):
            yield path
    elif isinstance(value, dict):
        for key, item in itertools.islice(value.items(), 100):
            yield from not_finite(item, f"{path}[{key!r}]", depth + 1)
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for key in value._fields:
            yield from not_finite(getattr(value, key), f"{path}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value[:100]):
            yield from not_finite(item, f"{path}[{i}]", depth + 1)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        status = getattr(value, "status", None)
        if isinstance(status, Tensor) and bool((status != 0).any()):
            return
        for item in dataclasses.fields(value):
            yield from not_finite(getattr(value, item.name), f"{path}.{item.name}", depth + 1)


def junk(case: Case, name: str, value: str) -> Any:
    if case.target.startswith("cli."):
        return value
    return Returns(value.removeprefix("returns ")) if value.startswith("returns ") else JUNK[value]()


def ordinary(value: Any, depth: int = 0) -> bool:
    """Whether all numbers in a value are finite, and neither huge nor tiny."""
    if isinstance(value, Returns):
        return ordinary(value())
    if isinstance(value, Tensor):
        return not value.dtype.is_floating_point or bool((value.detach().double().abs() <= HUGE).all())
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool((np.abs(value) <= HUGE).all())
    if isinstance(value, list | tuple) and depth < 3:
        return all(ordinary(item, depth + 1) for item in value)
    return not isinstance(value, int | float) or value == 0 or TINY <= abs(value) <= HUGE


@functools.cache
def usual(target: str) -> frozenset[str]:
    """Where the result of the valid call is not finite."""
    return frozenset(not_finite(baseline(target)))


def run(case: Case) -> Outcome:
    """Call the target, and judge."""
    target = targets()[0][case.target]
    torch.manual_seed(0)
    try:
        with quiet():
            expected = frozenset() if case.target.startswith("cli.") or not case.junk else usual(case.target)
            given = {key: make() for key, make in target.valid.items()}
        given |= {key: junk(case, key, value) for key, value in case.junk}
    except Exception as error:
        return Outcome("no baseline", first_line(error))
    made = inspect.isclass(target.call)
    strict = case.junk and (made or all(ordinary(given[k]) and k not in TIMES for k, _ in case.junk))
    try:
        with quiet():
            result = target.call(**given)
            wrong = sorted(set(not_finite(result)) - expected - UNLIMITED.get(case.target, set())) if strict else []
    except SystemExit as end:
        return ended(end)
    except BaseException as error:
        if of_memory(error):
            return Outcome("memory", first_line(error))
        if isinstance(error, ScoreSDEError):
            return Outcome("typed", first_line(error))
        return Outcome("ok" if of_caller(error) else "foreign", first_line(error))
    return Outcome("silent", f"not finite: {', '.join(p or 'the result' for p in wrong)}") if wrong else Outcome("ok")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Warnings as in the tests: those of others are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ScoreSDEWarning)
        warnings.filterwarnings("ignore", "This DataLoader will create")  # torch's advice on `workers`
        yield


# Child processes


def serve(connection: Connection) -> None:
    """Run the cases that come, each in an empty folder, until there are no more."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="junk-"))
    os.chdir(folder)
    try:
        while (case := connection.recv()) is not None:
            signal.setitimer(signal.ITIMER_PROF, WATCHDOG)  # its signal ends the process
            connection.send(run(case))
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            for path in folder.iterdir():
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Child:
    """A process that runs cases; it is replaced when it hangs or dies."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,))
        self.process.start()
        theirs.close()

    def ask(self, case: Case) -> Outcome:
        try:
            self.connection.send(case)
            if self.connection.poll(WAIT):
                return self.connection.recv()
            outcome = Outcome("watchdog", f"still running after {WAIT:g} s")
        except (EOFError, OSError):
            self.process.join(1.0)
            outcome = Outcome("crash", f"the process ended with {self.process.exitcode}")
            if self.process.exitcode == -signal.SIGPROF:
                outcome = Outcome("watchdog", f"still running after {WATCHDOG:g} s of processor time")
        self.process.kill()
        self.process.join()
        self.connection.close()
        self._start()
        return outcome

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self.process.join(5.0)
        self.process.kill()


def ask_all(cases: Iterable[Case], jobs: int, show: Callable[[int], None] | None = None) -> list[tuple[Case, Outcome]]:
    """The outcome of each case, by several children."""
    waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
    for case in cases:
        waiting.put(case)
    outcomes: list[tuple[Case, Outcome]] = []

    def drain() -> None:
        child = Child()
        with contextlib.suppress(queue.Empty):
            while True:
                case = waiting.get_nowait()
                outcomes.append((case, child.ask(case)))
                if show is not None:
                    show(len(outcomes))
        child.stop()

    threads = [threading.Thread(target=drain) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(outcomes)


# The sweep


@functools.cache
def values_of(target: str, name: str) -> list[str]:
    """The names of the junk values of an argument. A function is replaced by functions that return junk, too."""
    if target.startswith("cli."):
        return list(WORDS)
    make = targets()[0][target].valid.get(name)
    with quiet():
        value = None if make is None else make()
    function = callable(value) and not isinstance(value, type | nn.Module | torch.Generator)
    endless = ENDLESS.get(f"{target}.{name}", ())
    return [*(v for v in JUNK if v not in endless), *(f"returns {value}" for value in RETURNED if function)]


def singles(target: str) -> list[Case]:
    """Each argument replaced by each value."""
    names = targets()[0][target].names
    return [Case(target, ((name, value),)) for name in names for value in values_of(target, name)]


def pair(target: str, rng: random.Random) -> Case:
    """Two arguments replaced at random."""
    names = rng.sample(targets()[0][target].names, 2)
    return Case(target, tuple((name, rng.choice(values_of(target, name))) for name in names))


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """In a temporary folder, for values that write files when they are made."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="junk-") as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(here)


def plan(names: list[str], seed: int, quick: bool) -> list[Case]:
    """The cases of a sweep."""
    rng = random.Random(seed)
    cases = [case for name in names for case in singles(name)]
    several = [name for name in names if len(targets()[0][name].names) > 1]
    pairs = [pair(rng.choice(several), rng) for _ in range(int(PAIRS * len(cases)))] if several else []
    cases = list(dict.fromkeys([*cases, *pairs]))
    return rng.sample(cases, min(QUICK, len(cases))) if quick else cases


def report(outcomes: list[tuple[Case, Outcome]]) -> dict[str, Any]:
    """The counts, and what failed."""
    counts = collections.Counter(outcome.kind for _, outcome in outcomes)
    failed = [(str(case), outcome) for case, outcome in outcomes if outcome.kind in BAD]
    for case, outcome in failed:
        print(f"{outcome.kind:10} {case}: {outcome.detail}")
    print(f"{len(outcomes)} inputs: {', '.join(f'{n} {kind}' for kind, n in counts.most_common())}")
    listed = {case: f"{outcome.kind}: {outcome.detail}" for case, outcome in failed}
    return {"inputs": len(outcomes), "counts": dict(sorted(counts.items())), "failed": listed}


def check_committed(callables: int) -> None:
    """The last whole sweep found nothing, and swept nearly all that is public now."""
    whole = load("junk")["results"]
    print(f"the whole sweep: {whole['inputs']} inputs of {whole['callables']} public callables")
    if whole["failed"] or whole["callables"] < 0.95 * callables:
        sys.exit("benchmarks/results/junk.json: run `python -m tools junk` again")


def main(arguments: list[str]) -> None:
    """Sweep, print, and write or check."""
    parser = argparse.ArgumentParser(prog="python -m tools junk", description=__doc__)
    parser.add_argument("--check", action="store_true", help=f"{QUICK} inputs by chance")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs, and of the inputs of --check")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--only", default="", metavar="PATTERN", help="names that contain this")
    parser.add_argument("--no-write", action="store_true")
    parser.add_argument("--add", action="store_true", help="add names of --only that are new to the committed sweep")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MPLBACKEND", "Agg")
    multiprocessing.get_context("forkserver").set_forkserver_preload(LOADED)
    began = time.monotonic()
    found, missing = targets()
    names = [name for name in found if options.only in name]
    lost = [(Case(name), Outcome("no baseline", why)) for name, why in missing.items() if options.only in name]
    start = [row for row in ask_all(map(Case, names), options.jobs) if row[1].kind != "ok"]
    lost += [(case, Outcome("no baseline", f"{kind} {detail}")) for case, (kind, detail) in start]
    broken = {case.target for case, _ in lost}
    with elsewhere():
        cases = plan([name for name in names if name not in broken], options.seed, options.check)
    step = max(1, len(cases) // 50)

    def show(done: int) -> None:
        if done % step == 0 and not options.check:
            print(f"{time.monotonic() - began:7.0f} s  {done} of {len(cases)}", file=sys.stderr, flush=True)

    result = report(lost + ask_all(cases, options.jobs, show))
    print(f"{len(names)} public callables, {time.monotonic() - began:.0f} s")
    if options.check:
        check_committed(len(names))
    if not (options.check or options.only or options.no_write):
        write("junk", result | {"callables": len(names), "seed": options.seed}, "python -m tools junk")
    if options.add and not result["failed"]:
        known = load("junk")["results"]
        counts = {kind: known["counts"].get(kind, 0) + result["counts"].get(kind, 0) for kind in known["counts"]}
        total = known | {"inputs": known["inputs"] + result["inputs"], "counts": counts}
        total["callables"] += len(names)
        write("junk", total, "python -m tools junk, and --add for names that were added since")
    if result["failed"]:
        sys.exit(f"{len(result['failed'])} inputs are neither refused nor right")
