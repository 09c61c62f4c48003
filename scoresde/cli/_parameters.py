"""Options of commands: declared as fields of records, which several commands may share; their values from
``--config FILE.toml``; and how the shell completes names.

A command has one record. In the help its own options come first, then those of the records that it is made of.

Example:
    >>> @dataclass(frozen=True, kw_only=True)
    ... class SeedOptions:
    ...     seed: int = flag(0, "Seed of the noise.", min=0)
    >>> @dataclass(frozen=True, kw_only=True)
    ... class DrawOptions(SeedOptions):
    ...     seed: int = 7
    >>> [(option.name, option.default) for option in parameters_of(DrawOptions)]
    [('seed', 7), ('config', None)]
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields  # noqa: F401
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_INFO = "typer"  # the key of a field's metadata


def flag(default: Any, help: str, *spellings: str, names: Iterable[str] = (), **more: Any) -> Any:
    """A field of a record that is an option. A record that is made of another one may give the field another default.

    Args:
        default: its value; ``...`` for an option that must be given.
        help: what ``--help`` says of it.
        *spellings: where they are not the field's name with dashes.
        names: what the shell completes it with.
        **more: as of `typer.Option`.
    """
    return _field(default, typer.Option(*spellings, help=help, autocompletion=_completion(names), **more))


def argument(default: Any, help: str, names: Iterable[str] = (), **more: Any) -> Any:
    """A field of a record that is an argument without a name; see `flag`."""
    return _field(default, typer.Argument(help=help, autocompletion=_completion(names), **more))


def _field(default: Any, info: Any) -> Any:
    return field(default=MISSING if default is ... else default, metadata={_INFO: info})


def _completion(names: Iterable[str]) -> Any:
    return (lambda incomplete: [name for name in names if name.startswith(incomplete)]) if names else None


def parameters_of(record: type) -> list[inspect.Parameter]:
    """The fields of a record, as parameters that typer understands, and ``config``."""
    infos: dict[str, Any] = {}
    for base in record.__mro__:
        for name in inspect.get_annotations(base):
            metadata = vars(base)["__dataclass_fields__"][name].metadata
            if metadata:
                infos.setdefault(name, metadata[_INFO])
    types = get_type_hints(record)
    defaults = {each.name: each.default for each in fields(record)}
    found = [_parameter(name, defaults[name], Annotated[types[name], info]) for name, info in infos.items()]
    return [*found, _parameter("config", None, Config)]


def _parameter(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if default is MISSING else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


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
