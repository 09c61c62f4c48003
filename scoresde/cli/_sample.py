"""``scoresde sample``."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ..core.errors import InvalidArgumentError, out_of_memory, too_little_memory
from ..core.support.registries import ARRAY_CONTAINERS, CONTAINERS, PICTURE_CONTAINERS, RULES, SAMPLERS
from . import _parameters as parameters
from ._animation import ANIMATIONS, Frames
from ._batches import batches
from ._data import range_of
from ._drawing import CommandSamples
from ._inverse import METHOD, InverseProblem, methods, posed, problem_of
from ._operators import EXAMPLES, OPERATORS
from ._options import (
    effort,
    label_of,
    open_model,
    parse_options,
    plan_of,
    record_plan,
    saved_plan,
    source_of,
    threads,
    weights_of,
)
from ._output import ARRAYS, EXTENSIONS, FOLDER, check_animation, check_output, write
from ._run import command
from ._sets import (
    PATIENCE,
    Sharding,
    check_file,
    check_set,
    clear_parts,
    in_parts,
    leads,
    made_of,
    make_set,
)
from ._tuned import PILOT, RECORD, announcement, check_left_out, check_process, is_record, summary, tuned

if TYPE_CHECKING:
    from ..core.sdes import AffineSDE
    from ..trust import Certificate
    from ..zoo import Pretrained
    from ._options import SolvePlan


ALL = "all"
DEFAULT, BUDGET = "auto", 25  # the method, and its evaluations
_PILOT, _PILOT_BATCH = 256, 64  # draws that a certificate is made from, and how many are solved together


@command
def sample(
    model: parameters.Model = "mnist",
    sde: parameters.Process = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Solver: a name of `scoresde methods`, auto, or a FILE.json of what was tuned, fitted or learned. "
            "Default: the model's own sampler, if it has one and no other option of the process or solver is given, "
            "and auto otherwise; with a measurement that of its rule, mostly dpmpp_2m_sde."
        ),
    ] = None,
    steps: parameters.Steps = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="Measure first which method and grid have the smallest error with as many evaluations as --steps says "
            f"(default {BUDGET}), on this model with this label and guidance, and draw the samples with them.",
        ),
    ] = False,
    save_tuned: Annotated[
        Path | None,
        typer.Option(metavar=f"FILE{RECORD}", help="Also write what --tune chose, for --method FILE.json."),
    ] = None,
    num: Annotated[int, typer.Option("--count", "--num", min=1, max=2**62, help="Number of samples.")] = 30,
    first: Annotated[
        int,
        typer.Option(
            min=0,
            max=2**62,
            help="Index of the first sample: --first 7 --count 1 draws the eighth sample of a seed alone.",
        ),
    ] = 0,
    label: Annotated[
        str | None,
        typer.Option(
            help="Class of the samples, or `all` for all classes in turn. Default: no class.",
            autocompletion=parameters.names(["all"]),
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="Scale of classifier-free guidance towards --label: 0 ignores the class, 1 (the default) is the "
            "conditional model, and a scale above 1 exaggerates the class."
        ),
    ] = None,
    inpaint: Annotated[
        tuple[Path, str] | None,
        typer.Option(
            metavar="MASK IMAGE",
            help="Inpaint IMAGE where MASK, a picture of the same size, is white; where it is black the image is "
            "observed.",
        ),
    ] = None,
    measurement: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Sample what the data may have been, given this measurement: a file of `scoresde measure`, an array y "
            "(.npz, .safetensors; samples first), or a picture.",
        ),
    ] = None,
    operator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE,...]",
            help=f"Operator of the measurement: {EXAMPLES}. Default: the operator in the measurement's file.",
            autocompletion=parameters.names(OPERATORS),
        ),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation of the noise of the measurement, or of IMAGE, in the model's units. Default: the "
            "value in the measurement's file, or 0."
        ),
    ] = None,
    inverse: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE,...]",
            help=f"How a measurement is used: {', '.join(methods(RULES))}, which work with any --method; or "
            f"{', '.join(methods(SAMPLERS))}, which take the place of --method. Default: {METHOD}.",
            autocompletion=parameters.names(methods()),
        ),
    ] = None,
    certify: Annotated[
        float | None,
        typer.Option(
            metavar="CONFIDENCE",
            help="Measure the errors of the solver on a pilot first, as `scoresde certify` does, and give each sample "
            "a bound on its error, which holds with this probability; arrays have it as error_bound.",
        ),
    ] = None,
    seed: parameters.Seed = 0,
    device: parameters.Device = "auto",
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE or FOLDER/",
            help=f"Output; the extension of a file determines its format: {', '.join(EXTENSIONS)}. A folder, such as "
            "pictures/, receives a picture of each sample.",
        ),
    ] = "samples.png",
    shard_size: parameters.ShardSize = None,
    container: Annotated[
        str | None,
        typer.Option(
            "--format",
            help=f"Write a set into the folder --out, in files of this kind: {', '.join(CONTAINERS)} (pictures in an "
            f"archive, for WebDataset). Default: {ARRAY_CONTAINERS[0]}.",
            autocompletion=parameters.names(CONTAINERS),
        ),
    ] = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="Let the set in the folder become as large as --first and --count say.")
    ] = False,
    max_failures: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the samples of a set that may fail; they are kept as NaN.")
    ] = 0.0,
    patience: parameters.Patience = PATIENCE,
    scale: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Pixels per side that one element of a sample has in pictures. Default: 1 in a folder, otherwise as "
            "few as make samples at least 32 pixels wide and high.",
        ),
    ] = None,
    animate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write an animation of how the samples arise from noise: .gif or .mp4."),
    ] = None,
    force: parameters.Force = False,
    rtol: parameters.Rtol = None,
    atol: parameters.Atol = None,
    max_steps: parameters.MaxSteps = None,
    grid: parameters.Grid = None,
    stochasticity: Annotated[
        float | None, typer.Option(help="Stochasticity eta of the reverse process, for methods that take it.")
    ] = None,
    option: parameters.Options = None,
    denoise: Annotated[
        bool | None,
        typer.Option(
            "--denoise/--no-denoise",
            help="End with the data estimate, without the noise that is left at the last level; this takes one more "
            "evaluation. Default: on for pictures; off for arrays, which then have the distribution that the solver "
            "samples.",
        ),
    ] = None,
    batch_size: parameters.BatchSize = 256,
    quiet: parameters.Quiet = False,
) -> None:
    """Draw samples from a model, or samples of what the data may have been, given a measurement.

    The output is one picture (.png), a folder with a picture of each sample, or the arrays x, index and nfe with the
    settings as metadata (.npz, .safetensors). It is written as a whole, and an existing output is kept unless --force
    is given. If any sample fails, nothing is written.

    With --shard-size or --format the output is a set in a folder: in shards, which an interrupted command leaves behind
    and the same command completes. `scoresde verify` says whether all of it is there. Other outputs of more than one
    batch are kept in parts beside the output until it is written, and the same command goes on with them.

    The samples of several measurements in one file are drawn in turn: sample i is of measurement i modulo their number.
    """
    began = time.perf_counter()
    sharding = Sharding(shard_size, container, patience, max_failures, extend)
    sharded = sharding.wanted
    if sharded:
        _check_not_tuned(tune)
        _check_not_certified("a set of shards", certify is not None)
        container = check_set(out, sharding, CONTAINERS, force=force, scale=scale, animate=animate)
        target, extension = Path(out), FOLDER
    else:
        check_file(out, sharding)
        target, extension = check_output(out, (*EXTENSIONS, FOLDER), force=force)
    film = check_animation(animate, ANIMATIONS, force=force)
    drawn = container in PICTURE_CONTAINERS if sharded else extension not in ARRAYS
    if scale is not None and not drawn and film is None:
        raise InvalidArgumentError("`scale` is for pictures and animations; the output has arrays.")
    kept = None if save_tuned is None else check_output(save_tuned, (RECORD,), force=force, name="save-tuned")[0]
    if kept is not None and not tune:
        raise InvalidArgumentError(f"`save-tuned` needs --tune, which makes what {str(save_tuned)!r} is to hold.")
    _check_not_certified("an animation", certify is not None and animate is not None)
    _check_not_certified("--label all", certify is not None and label == ALL)
    options = parse_options(option or [])
    problem = problem_of(inpaint, operator, measurement, noise, inverse)
    _check_not_certified("a measurement", certify is not None and problem is not None)
    if problem is not None and problem.method in SAMPLERS:  # which take the place of --method
        hint = f" Its own options are given as --inverse {problem.method}:key=value."
        check_left_out(f"{problem.method!r} steps by itself", hint, method=method, option=option)
    untold = not tune and all(v is None for v in (problem, sde, method, steps, grid, rtol, atol, stochasticity, option))
    fixed_steps: dict[str, Any] = {"stochasticity": stochasticity, "rtol": rtol, "atol": atol, "max_steps": max_steps}
    if tune:
        _check_tunable(problem, method=method, grid=grid, option=option, **fixed_steps)
    elif is_record(method):
        check_left_out(f"the steps are those of --method {method}", **fixed_steps)
    if problem is not None:
        method = problem.sampler if method is None else method
    elif method is None:
        method, steps = DEFAULT, BUDGET if steps is None and rtol is None and atol is None else steps
    plan = plan_of(method, steps, grid, options)
    network, where, process, title, event = open_model(model, device, sde)
    if drawn or film is not None:
        _check_pictures(event, out if drawn else str(animate))
    if is_record(method):
        check_process(str(method), plan.told["method"], process)
    span = range_of(network)
    plan_at, measured = None, 1
    if problem is not None:
        plan_at, measured = posed(problem, plan, event, process, span)
        plan = plan_at(range(1))
    own = saved_plan(network) if untold else None
    if own is not None:
        plan, process, title = own, network.sde, "its own process"
    classes_of = partial(_classes, network, label)
    score_of = _labelled(network, process, label, guidance)
    size = batch_size if sharded else min(batch_size, num)
    record = None
    if tune:
        if not quiet:
            typer.echo(announcement(model, steps or BUDGET), err=True)
        with threads(where, PILOT * math.prod(event)):
            record = tuned(process, score_of(first, PILOT), steps or BUDGET, event, seed, where)
        plan = record_plan(record.method, record)
    usual = drawn if plan.denoise is None else plan.denoise
    clean = usual if denoise is None else denoise
    arguments: dict[str, Any] = {
        "rtol": rtol,
        "atol": atol,
        "max_steps": max_steps,
        "stochasticity": stochasticity,
        "denoise": clean,
    }
    frames = None if film is None else Frames(process)
    certificate = None
    if certify is not None:
        from ..trust.conformal import check_confidence

        check_confidence("certify", certify)
        if not quiet:
            typer.echo(f"Measuring {_PILOT} draws of {model} ({title}) ...", err=True)
        with threads(where, _PILOT_BATCH * math.prod(event)):
            certificate = _certified(process, plan, score_of(first, 1), arguments, certify, event, where, seed)
    drawing = CommandSamples(
        process=process,
        event=event,
        seed=seed,
        device=where,
        plan=plan,
        plan_at=plan_at or (lambda indices: plan),
        measured=measured,
        score_of=score_of,
        classes_of=classes_of,
        arguments=arguments,
        first=first,
        num=num,
        frames=frames,
        certificate=certificate,
    )
    metadata = {
        "scoresde": __version__,
        "model": source_of(network, model),
        "sde": repr(process),
        **plan.shown,
        **arguments,
        "label": int(label) if label is not None and label != ALL else label,
        **({} if guidance is None else {"guidance": guidance}),
        **({} if certificate is None else {"certificate": certificate.content()}),
        "seed": seed,
    }
    told = {k: v for k, v in metadata.items() if k != "model" and not (k == "method" and "record" in metadata)}
    settings = {**told, "weights": weights_of(network), "event": list(event)}
    what_for, bar = f"{model}: {title}, {plan.name}", None if quiet else f"{plan.name} ({title})"
    if container is not None:
        settings["container"] = container
        sizes = {"first": first, "count": num, "batch_size": size}
        with threads(where, size * math.prod(event)):
            made = make_set(
                target,
                settings,
                sizes,
                drawing.marked,
                where,
                sharding,
                data_range=span,
                title=bar,
            )
        if not quiet and leads():
            took = f"{time.perf_counter() - began:.1f} s"
            typer.echo(f"{num} samples of {what_for}\n{made_of(made, target)}; {took}")
        return
    import torch

    _check_room(num, event)
    with contextlib.ExitStack() as parts, threads(where, size * math.prod(event)):
        if num > size and frames is None:
            settings["first"] = first
            sizes = {"first": 0, "count": num, "batch_size": size, "shard_size": size}
            found = parts.enter_context(in_parts(target, settings, sizes, drawing.part, where, bar))
        else:
            rows = list(batches(lambda done, *rest: drawing.whole(first + done, *rest), num, size, bar or "", quiet))
            found = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        metadata |= {"first": first, "num": num}
        x, nfe = found.pop("x"), found["nfe"]
        beside = {"index": torch.arange(first, first + num), "nfe": nfe, **found}
        check_output(out, (*EXTENSIONS, FOLDER), force=force)  # it may be there by now
        what = write(target, extension, x, beside, metadata, span, scale)
    clear_parts(target)
    if record is not None and kept is not None:
        record.save(kept)
    if frames is not None:
        from ..plot import image_animation

        image_animation(frames.states(x), film, data_range=span, scale=scale)
    if not quiet:
        if record is not None:
            typer.echo(summary(record))
        if certificate is not None:
            typer.echo(certificate.statement())
        typer.echo(f"{num} samples of {what_for}, {effort(plan.solver, plan.steps, nfe.tolist())}")
        typer.echo(f"{out}: {what}; {drawing.calls} network calls, {time.perf_counter() - began:.1f} s")


def _check_not_certified(what: str, given: bool) -> None:
    """Refuse a certificate for samples that do not come from one solve of one kind."""
    if given:
        raise InvalidArgumentError(f"`certify` is not for {what}; leave --certify out.")


def _certified(
    process: AffineSDE,
    plan: SolvePlan,
    score_fn: Callable[..., Any],
    arguments: Mapping[str, Any],
    confidence: float,
    event: tuple[int, ...],
    where: Any,
    seed: int,
) -> Certificate:
    """The certificate of a plan."""
    from ..trust import certify

    return certify(
        process,
        plan.model(score_fn),
        confidence=confidence,
        shape=(_PILOT, *event),
        pilot=_PILOT,
        batch_size=_PILOT_BATCH,
        seed=seed,
        device=where,
        **{name: value for name, value in {**plan.told, **arguments}.items() if value is not None},
    )


def _check_tunable(problem: InverseProblem | None, **given: Any) -> None:
    """Refuse what leaves nothing to tune, or cannot be tuned for."""
    if problem is not None:
        raise InvalidArgumentError(
            "`tune`: it is not known which method is best for a measurement; leave --tune out, and give a --method."
        )
    check_left_out("--tune chooses the method and its grid", **given)


def _check_pictures(event: tuple[int, ...], out: str) -> None:
    """Refuse samples that are no pictures."""
    if not (len(event) == 3 and event[0] in (1, 3)):
        raise InvalidArgumentError(
            f"`out`: samples of shape {event} are no pictures; write arrays, --out {Path(out).with_suffix('.npz')}."
        )


def _labelled(
    network: Pretrained, process: AffineSDE, label: str | None, scale: float | None
) -> Callable[[int, int], Callable[..., Any]]:
    """The network's score for samples ``first`` … ``first + count - 1``, as a function of these two numbers: for their
    classes, guided away from its score without one."""
    if scale is not None and label is None:
        raise InvalidArgumentError(
            "`guidance` needs a class to guide towards; give one, such as --label 7 --guidance 2."
        )

    def score_of(first: int, count: int) -> Callable[..., Any]:
        score_fn = network.score(process, **label_of(network, _classes(network, label, first, count)))
        if scale is None:
            return score_fn
        from ..guidance import classifier_free

        return classifier_free(score_fn, network.score(process), scale)

    return score_of


def _classes(network: Pretrained, label: str | None, first: int, count: int) -> Any:
    """The class of all samples, None for none, or one for each of them."""
    if label is None:
        return None
    if label == ALL and network.labels is not None:
        import torch

        return torch.arange(first, first + count) % network.labels.count
    if label == ALL:
        return 0  # which a model without labels refuses
    try:
        return int(label)
    except ValueError:
        raise InvalidArgumentError(f"`label` must be the number of a class, or {ALL}, got {label!r}.") from None


def _check_room(num: int, event: tuple[int, ...]) -> None:
    """Take memory for all samples, to see that it is there before the first is computed."""
    import torch

    try:
        torch.empty((num, *event))
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise too_little_memory(f"for {num} samples", error) from error


def _check_not_tuned(tune: bool) -> None:
    """Refuse what every process of a set would do."""
    if tune:
        raise InvalidArgumentError(
            "`tune` is not for sets, which every process would tune for; tune once, --tune --count 1 --save-tuned "
            "FILE.json, and give --method FILE.json."
        )
