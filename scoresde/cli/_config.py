"""``--config FILE.toml``: values for the options of a command from a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def values(content: Mapping[str, Any], command: str, others: Iterable[str], names: Mapping[str, str]) -> dict[str, Any]:
    """The values that a file has for a command, as texts, since those of the command line are texts.

    Args:
        content: of the file: values for any command, and tables with the names of commands.
        command: its name.
        others: the names of all commands.
        names: of its options, without the dashes, and of their parameters.

    Raises:
        ValueError: the command has no such option, or its value is none that a command line has.

    Example:
        >>> values(
        ...     {"seed": 3, "sample": {"steps": 5, "option": {"eta": 0.5}}, "train": {}},
        ...     "sample",
        ...     ["sample", "train"],
        ...     {"seed": "seed", "steps": "steps", "option": "option"},
        ... )
        {'seed': '3', 'steps': '5', 'option': ['eta=0.5']}
    """
    shared = {key: value for key, value in content.items() if key not in others}
    own = content.get(command, {})
    if not isinstance(own, Mapping):
        raise ValueError(f"{command!r} must be a table, [{command}]")
    found = {}
    for key, value in {**shared, **own}.items():
        option = key.replace("_", "-")
        if option not in names:
            raise ValueError(f"{command!r} has no option {key!r}; it has {', '.join(sorted(names))}")
        found[names[option]] = _text(key, value)
    return found


def _text(key: str, value: Any) -> str | list[str]:
    if isinstance(value, Mapping):
        return [f"{inner}={_text(key, v)}" for inner, v in value.items()]
    if isinstance(value, list):
        return [str(_text(key, v)) for v in value]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return str(value)
    raise ValueError(f"{key!r} must be a number, a text, true or false, or a list of them, got {value!r}")


def _read(ctx: typer.Context, path: Path | None) -> None:
    """Let the values of the file stand where the command line has none."""
    if path is None or ctx.resilient_parsing:
        return
    names = {
        text[2:]: parameter.name
        for parameter in ctx.command.params
        for text in parameter.opts
        if text.startswith("--") and parameter.name not in ("config", "help")
    }
    parent = ctx.parent
    others = [] if parent is None else list(getattr(parent.command, "commands", {}))
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(1 << 20)
            if file.read(1):  # no settings, and a device such as /dev/full has no end
                raise ValueError("the file has more than 1 MiB")
        content = tomllib.loads(text)
        found = values(content, ctx.info_name or "", others, names)
    except (OSError, ValueError, RecursionError) as error:  # a TOMLDecodeError is a ValueError
        raise typer.BadParameter(f"{str(path)!r}: {getattr(error, 'strerror', None) or error}.") from None
    ctx.default_map = {**(ctx.default_map or {}), **found}


Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.toml",
        is_eager=True,
        callback=_read,
        help="Values of options, such as steps = 20; those under [sample] are for that command only. Options on the "
        "command line take precedence.",
    ),
]
