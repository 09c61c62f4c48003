"""``scoresde sample``."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..core.errors import InvalidArgumentError, out_of_memory, too_little_memory
from ..core.support.registries import CONTAINERS, PICTURE_CONTAINERS, SAMPLERS
from ._data import range_of
from ._drawing import ALL, ANIMATIONS, CommandSamples, Frames, Scores
from ._inverse import InverseOptions, InverseProblem, posed, problem_of
from ._options import (
    AUTO,
    BUDGET,
    RECORD,
    NetworkOptions,
    Opened,
    SolveOptions,
    SolvePlan,
    check_left_out,
    check_process,
    effort,
    is_record,
    record_plan,
    saved_plan,
    source_of,
    weights_of,
)
from ._output import ARRAYS, EXTENSIONS, FOLDER, PICTURE, check_animation, check_output, write
from ._run import command, flag
from ._sets import ManyOptions, batches, clear_parts, container_flag, in_parts

if TYPE_CHECKING:
    from torch import Tensor

    from ..trust import Certificate
    from ..tuning import Tuned

_TUNED = 16  # samples that a method is tuned on
_PILOT, _PILOT_BATCH = 256, 64  # draws that a certificate is made from, and how many are solved together


@dataclass(frozen=True, kw_only=True)
class DrawOptions(NetworkOptions, SolveOptions):
    """Which samples are drawn, and how."""

    model: str = "mnist"
    method: str | None = flag(
        None,
        "Solver: a name of `scoresde methods`, auto, or a FILE.json of what was tuned, fitted or learned. Default: the "
        "model's own sampler, if it has one and no other option of the process or solver is given, and auto otherwise; "
        "with a measurement that of its rule, mostly dpmpp_2m_sde.",
    )
    tune: bool = flag(
        False,
        "Measure first which method and grid have the smallest error with as many evaluations as --evaluations says "
        f"(default {BUDGET}), on this model with this label and guidance, and draw the samples with them.",
        "--tune",
    )
    save_tuned: Path | None = flag(
        None, "Also write what --tune chose, for --method FILE.json.", metavar=f"FILE{RECORD}"
    )
    num: int = flag(30, "Number of samples.", "--count", "--num", min=1, max=2**62)
    first: int = flag(
        0,
        "Index of the first sample: --first 7 --count 1 draws the eighth sample of a seed alone.",
        min=0,
        max=2**62,
    )
    label: str | None = flag(
        None, "Class of the samples, or `all` for all classes in turn. Default: no class.", names=[ALL]
    )
    guidance: float | None = flag(
        None,
        "Scale of classifier-free guidance towards --label: 0 ignores the class, 1 (the default) is the "
        "conditional model, and a scale above 1 exaggerates the class.",
    )
    certify: float | None = flag(
        None,
        "Measure the errors of the solver on a pilot first, as `scoresde certify` does, and give each sample "
        "a bound on its error, which holds with this probability; arrays have it as error_bound.",
        metavar="CONFIDENCE",
    )
    stochasticity: float | None = flag(None, "Stochasticity eta of the reverse process, for methods that take it.")
    denoise: bool | None = flag(
        None,
        "End with the data estimate, without the noise that is left at the last level; this takes one more "
        "evaluation. Default: on for pictures; off for arrays, which then have the distribution that the solver "
        "samples.",
        "--denoise/--no-denoise",
    )


@dataclass(frozen=True, kw_only=True)
class TargetOptions(ManyOptions):
    """What is made of the samples."""

    out: str = flag(
        "",
        f"Output; the extension of a file determines its format: {', '.join(EXTENSIONS)}. A folder, such as "
        "pictures/, receives a picture of each sample. A .gif or .mp4 is that of --animate, beside a .png. Default: "
        "samples.png, or samples-2.png and so on where that is there.",
        metavar="FILE or FOLDER/",
    )
    container: str | None = container_flag(CONTAINERS, " (pictures in an archive, for WebDataset)")
    extend: bool = flag(False, "Let the set in the folder become as large as --first and --count say.", "--extend")
    max_failures: float = flag(
        0.0, "Share of the samples of a set that may fail; they are kept as NaN.", min=0.0, max=1.0
    )
    scale: int | None = flag(
        None,
        "Pixels per side that one element of a sample has in pictures. Default: 1 in a folder, otherwise as few as "
        "make samples at least 32 pixels wide and high.",
        min=1,
    )
    animate: Path | None = flag(
        None, "Also write an animation of how the samples arise from noise: .gif or .mp4.", metavar="FILE"
    )
    force: bool = flag(False, "Replace an existing output.", "--force")


@dataclass(frozen=True, kw_only=True)
class SampleOptions(DrawOptions, InverseOptions, TargetOptions):
    """The options of ``scoresde sample``."""

    batch_size: int = 256

    @property
    def untold(self) -> bool:
        """Whether no option is about the solve."""
        told = (
            self.sde,
            self.method,
            self.evaluations,
            self.steps,
            self.grid,
            self.rtol,
            self.atol,
            self.stochasticity,
            self.option,
        )
        return not self.tune and all(value is None for value in told)


@command
def sample(options: SampleOptions) -> None:
    """Draw samples from a model, or samples of what the data may have been, given a measurement.

    The output is one picture (.png), a folder with a picture of each sample, or the arrays x, index and nfe with the
    settings as metadata (.npz, .safetensors). It is written as a whole, and an existing output is kept unless --force
    is given. If any sample fails, nothing is written.

    With --shard-size or --format the output is a set in a folder: in shards, which an interrupted command leaves behind
    and the same command completes. `scoresde verify` checks that all of it is there. Other outputs of more than one
    batch are kept in parts beside the output until it is written, and the same command goes on with them.

    The samples of several measurements in one file are drawn in turn: sample i is of measurement i modulo their number.
    """
    options = _placed(options)
    _check_certifiable(options)
    problem = problem_of(options)
    _check_solve(options, problem)
    plan = _plan(options, problem)
    opened = options.opened()
    output = _Output.of(options)
    output.check_event(opened.event)
    if is_record(options.method):
        check_process(str(options.method), plan.told["method"], opened.process)
    plan_at, measured = None, 1
    if problem is not None:
        plan_at, measured = posed(problem, plan, opened.event, opened.process, range_of(opened.network))
        plan = plan_at(range(1))
    own = saved_plan(opened.network) if problem is None and options.untold else None
    if own is not None:
        plan, opened = own, opened._replace(process=opened.network.sde, title="its own process")
    scores = Scores(opened, options.label, options.guidance)
    record = _tuned(options, scores) if options.tune else None
    if record is not None:
        plan = record_plan(record.method, record)
    usual = output.drawn if plan.denoise is None else plan.denoise
    clean = usual if options.denoise is None else options.denoise
    arguments = {**options.accuracy, "stochasticity": options.stochasticity, "denoise": clean}
    drawing = CommandSamples(
        opened=opened,
        scores=scores,
        seed=options.seed,
        first=options.first,
        num=options.num,
        plan=plan,
        plan_at=plan_at if measured > 1 else None,
        measured=measured,
        arguments=arguments,
        frames=None if options.animate is None else Frames(opened.process),
        certificate=_certified(options, scores, plan, arguments),
    )
    if options.in_set:
        _into_set(options, drawing)
    else:
        _into_file(options, output, drawing, record)


def _placed(options: SampleOptions) -> SampleOptions:
    """The same with the files that are meant, where the command line does not name them."""
    film = Path(options.out)
    if film.suffix.lower() in ANIMATIONS and options.animate is None and not options.in_set:
        return replace(options, out=str(film.with_suffix(PICTURE)), animate=film)
    if options.out:
        return options
    names = (f"samples-{number}.png" if number > 1 else "samples.png" for number in count(1))
    return replace(
        options, out=next(name for name in names if options.force or options.in_set or not Path(name).exists())
    )


@dataclass(frozen=True)
class _Output:
    """Where samples go.

    Attributes:
        target, extension: of the samples, and their format.
        drawn: whether they are pictures.
        film: where an animation of them goes.
        kept: where what was tuned goes.
    """

    options: SampleOptions
    target: Path
    extension: str
    drawn: bool
    film: Path | None
    kept: Path | None

    @classmethod
    def of(cls, options: SampleOptions) -> _Output:
        """That of a command line, checked before the work."""
        force = options.force
        if options.in_set:
            if options.tune:
                raise InvalidArgumentError(
                    "`tune` is not for sets, which every process would tune for; tune once, --tune --count 1 "
                    "--save-tuned FILE.json, and give --method FILE.json."
                )
            container = options.check_set(CONTAINERS, force=force, scale=options.scale, animate=options.animate)
            target, extension, drawn = Path(options.out), FOLDER, container in PICTURE_CONTAINERS
        else:
            if options.extend or options.max_failures:
                raise InvalidArgumentError(
                    "`extend` and `max-failures` are for sets; give --shard-size or --format, too."
                )
            options.check_file()
            target, extension = check_output(options.out, (*EXTENSIONS, FOLDER), force=force)
            drawn = extension not in ARRAYS
        film = check_animation(options.animate, ANIMATIONS, force=force)
        if options.scale is not None and not drawn and film is None:
            raise InvalidArgumentError("`scale` is for pictures and animations; the output has arrays.")
        kept = None
        if options.save_tuned is not None:
            kept, _ = check_output(options.save_tuned, (RECORD,), force=force, name="save-tuned")
            if not options.tune:
                raise InvalidArgumentError(
                    f"`save-tuned` needs --tune, which makes what {str(options.save_tuned)!r} is to hold."
                )
        return cls(options, target, extension, drawn, film, kept)

    def check_event(self, event: tuple[int, ...]) -> None:
        """Refuse samples that are no pictures, where pictures are wanted."""
        if (self.drawn or self.film is not None) and not (len(event) == 3 and event[0] in (1, 3)):
            arrays = Path(self.options.out if self.drawn else str(self.film)).with_suffix(".npz")
            raise InvalidArgumentError(
                f"`out`: samples of shape {event} are no pictures; write arrays, --out {arrays}."
            )


def _check_certifiable(options: SampleOptions) -> None:
    """Refuse a certificate for samples that do not come from one solve of one kind."""
    if options.certify is None:
        return
    from ..trust.conformal import check_confidence

    check_confidence("certify", options.certify)
    several = {
        "a set of shards": options.in_set,
        "an animation": options.animate is not None,
        "--label all": options.label == ALL,
        "a measurement": options.inpaint is not None or options.measurement is not None,
    }
    for what, given in several.items():
        if given:
            raise InvalidArgumentError(f"`certify` is not for {what}; leave --certify out.")


def _check_solve(options: SampleOptions, problem: InverseProblem | None) -> None:
    """Refuse options that leave no room for each other."""
    if problem is not None and problem.method in SAMPLERS:  # which take the place of --method
        hint = f" Its own options are given as --inverse {problem.method}:key=value."
        check_left_out(f"{problem.method!r} steps by itself", hint, method=options.method, option=options.option)
    if options.tune and problem is not None:
        raise InvalidArgumentError(
            "`tune`: it is not known which method is best for a measurement; leave --tune out, and give a --method."
        )
    fixed: dict[str, Any] = {"stochasticity": options.stochasticity, **options.accuracy}
    if options.tune:
        fixed |= {"method": options.method, "grid": options.grid, "option": options.option}
        check_left_out("--tune chooses the method and its grid", **fixed)
    elif is_record(options.method):
        check_left_out(f"the steps are those of --method {options.method}", **fixed)


def _plan(options: SampleOptions, problem: InverseProblem | None) -> SolvePlan:
    """How to solve, as far as the command line says."""
    if options.method is not None:
        return options.plan(options.method)
    if problem is not None:
        return options.plan(problem.sampler)
    return options.plan(AUTO, budget=True)


def _tuned(options: SampleOptions, scores: Scores) -> Tuned:
    """The choice of a method and a grid that was measured."""
    from ..tuning import tune
    from ..tuning.tuning import most_calls

    opened, budget = scores.opened, options.evaluations or options.steps or BUDGET
    work = f"by about {most_calls(budget)} network calls with {_TUNED} samples"
    options.say(f"Tuning {options.model} for {budget} evaluations, {work} ...", err=True)
    with opened.threads(_TUNED):
        return tune(
            opened.process,
            scores(options.first, _TUNED),
            budget,
            pilot=_TUNED,
            shape=(_TUNED, *opened.event),
            seed=options.seed,
            device=opened.device,
        )


def _certified(
    options: SampleOptions, scores: Scores, plan: SolvePlan, arguments: dict[str, Any]
) -> Certificate | None:
    """The certificate of a plan, if there is to be one."""
    if options.certify is None:
        return None
    from ..trust import certify

    opened = scores.opened
    options.say(f"Measuring {_PILOT} draws of {options.model} ({opened.title}) ...", err=True)
    with opened.threads(_PILOT_BATCH):
        return certify(
            opened.process,
            plan.model(scores(options.first, 1)),
            confidence=options.certify,
            shape=(_PILOT, *opened.event),
            pilot=_PILOT,
            batch_size=_PILOT_BATCH,
            seed=options.seed,
            device=opened.device,
            **{name: value for name, value in {**plan.told, **arguments}.items() if value is not None},
        )


def _metadata(options: SampleOptions, drawing: CommandSamples) -> dict[str, Any]:
    """What an output records of what made it."""
    label, certificate = options.label, drawing.certificate
    return {
        "scoresde": __version__,
        "model": source_of(drawing.opened.network, options.model),
        "sde": repr(drawing.opened.process),
        **drawing.plan.shown,
        **drawing.arguments,
        "label": int(label) if label is not None and label != ALL else label,
        **({} if options.guidance is None else {"guidance": options.guidance}),
        **({} if certificate is None else {"certificate": certificate.content()}),
        "seed": options.seed,
    }


def _settings(metadata: dict[str, Any], opened: Opened) -> dict[str, Any]:
    """What decides the results: not the names of the model and of a method's file, but what is in them."""
    told = {k: v for k, v in metadata.items() if k != "model" and not (k == "method" and "record" in metadata)}
    return {**told, "weights": weights_of(opened.network), "event": list(opened.event)}


def _into_set(options: SampleOptions, drawing: CommandSamples) -> None:
    """Write samples into a set."""
    opened, name = drawing.opened, drawing.plan.name
    made = options.make(
        _settings(_metadata(options, drawing), opened),
        drawing.marked,
        opened,
        options.num,
        title=f"{name} ({opened.title})",
        first=options.first,
        extend=options.extend,
        max_failures=options.max_failures,
        data_range=range_of(opened.network),
    )
    options.say(f"{options.num} samples of {options.model}: {opened.title}, {name}\n{options.made(made)}")


def _into_file(options: SampleOptions, output: _Output, drawing: CommandSamples, record: Tuned | None) -> None:
    """Write samples into a file or a folder of pictures, and what goes beside them."""
    import torch

    opened, plan, num, first = drawing.opened, drawing.plan, options.num, options.first
    metadata, span = _metadata(options, drawing), range_of(opened.network)
    _check_room(num, opened.event)
    with _found(options, output, drawing, metadata) as found:
        x, nfe = found.pop("x"), found["nfe"]
        beside = {"index": torch.arange(first, first + num), "nfe": nfe, **found}
        check_output(options.out, (*EXTENSIONS, FOLDER), force=options.force)  # it may be there by now
        metadata |= {"first": first, "num": num}
        what = write(output.target, output.extension, x, beside, metadata, span, options.scale)
    clear_parts(output.target)
    if record is not None and output.kept is not None:
        record.save(output.kept)
    if drawing.frames is not None:
        from ..plot import image_animation

        image_animation(drawing.frames.states(x), output.film, data_range=span, scale=options.scale)
    if record is not None:
        options.say(_summary(record))
    if drawing.certificate is not None:
        options.say(drawing.certificate.statement())
    took = effort(plan, nfe.tolist())
    options.say(f"{num} samples of {options.model}: {opened.title}, {plan.name}, {took}")
    film = "" if output.film is None else f", animation {options.animate}"
    options.say(f"{options.out}: {what}{film}; {drawing.calls} network calls, {options.took}")


@contextlib.contextmanager
def _found(
    options: SampleOptions, output: _Output, drawing: CommandSamples, metadata: dict[str, Any]
) -> Iterator[dict[str, Tensor]]:
    """The arrays of all samples; those of more than one batch are in parts beside the output while the block runs."""
    import torch

    opened, num, first = drawing.opened, options.num, options.first
    size, bar = min(options.batch_size, num), f"{drawing.plan.name} ({opened.title})"
    with opened.threads(size):
        if num > size and drawing.frames is None:
            settings = {**_settings(metadata, opened), "first": first}
            sizes = {"first": 0, "count": num, "batch_size": size, "shard_size": size}
            title = None if options.quiet else bar
            with in_parts(output.target, settings, sizes, drawing.part, opened.device, title) as found:
                yield found
        else:
            rows = list(batches(lambda done, *rest: drawing.whole(first + done, *rest), num, size, bar, options.quiet))
            yield {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def _check_room(num: int, event: tuple[int, ...]) -> None:
    """Take memory for all samples, to see that it is there before the first is computed."""
    import torch

    try:
        torch.empty((num, *event))
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise too_little_memory(f"for {num} samples", error) from error


def _summary(record: Tuned) -> str:
    """The choice in a line: what it is, its error and that of ``auto``, and its cost.

    Example:
        >>> from scoresde.tuning import Cost, PilotErrors, Ranked, Tuned
        >>> _summary(
        ...     Tuned(
        ...         (1.0, 0.1),
        ...         evaluations=1,
        ...         fitted=PilotErrors(0.2, 0.1),
        ...         cost=Cost(48, 0, 48.0),
        ...         ranking=(Ranked("DDIM()", "karras", 0.2, 0.1, 1.0, 0.0),),
        ...     )
        ... )
        'tuned for 1 evaluation: DDIM() on karras, pilot median error 0.1; 48 network calls with 16 samples'
    """
    best, auto = record.ranking[0], record.default.median
    other = "" if math.isnan(auto) else f" (auto {auto:.2g})"
    return (
        f"tuned for {record.evaluations} evaluation{'s' * (record.evaluations != 1)}: {best.method} on {best.grid}, "
        f"pilot median error {record.fitted.median:.2g}{other}; {record.cost.calls} network calls with {_TUNED} samples"
    )
