"""The command line: ``scoresde sample``, ``measure``, ``likelihood``, ``encode``, ``certify``, ``diagnose``, ``train``,
``methods``, ``presets``, ``check``, ``verify``.

Exit codes:
    0: done, and the output is complete.
    1: anything that is not listed here, such as too little memory.
    2: the command cannot be carried out as it is written: an unknown name, a value out of range.
    3: the numbers went wrong: NaN or infinity, a solver that did not arrive, a score function that is none.
    4: the output cannot be written, or it is there and ``--force`` is not given.
    5: the model cannot be read, or a set is not complete.
    75: interrupted; the same command starts again, or resumes where it stopped.

This package imports torch inside the commands only, so that help is quick.

Example:
    >>> from typer.testing import CliRunner
    >>> result = CliRunner().invoke(app, ["--version"])
    >>> result.exit_code, result.stdout.startswith("scoresde ")
    (0, True)
"""

from __future__ import annotations

from typing import Annotated

import typer

from ._encode import encode
from ._likelihood import likelihood
from ._lists import methods, presets
from ._operators import measure
from ._sample import sample
from ._train import train
from ._trust import certify, check, diagnose, verify

__all__ = ["app"]

app = typer.Typer(
    name="scoresde",
    help="Solve the SDEs and ODEs of score-based generative models.",
    epilog="Exit codes: 0 done, 2 usage, 3 numerical failure, 4 output, 5 model, 75 interrupted.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"scoresde {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


for _command in (sample, measure, likelihood, encode, certify, diagnose, train, methods, presets, check, verify):
    app.command()(_command)
