"""Which arguments a callable of a user takes, found out before it is called."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch import nn

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def parameters(function: Any) -> Mapping[str, inspect.Parameter] | None:
    """The parameters of a callable, of ``forward`` for a module, also a compiled one; None where Python cannot inspect
    them."""
    if isinstance(function, nn.Module):
        function = getattr(function, "_orig_mod", function)  # what torch.compile was given
        function = function.forward
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None


def accepts(function: object, name: str) -> bool:
    """Whether ``function(..., name=value)`` is possible, as far as can be seen; True if it cannot be seen.

    A callable may have a method ``accepts(name)`` of its own that answers for what it wraps.
    """
    own = getattr(function, "accepts", None)
    if callable(own):
        return bool(own(name))
    known = parameters(function)
    if known is None or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        return True
    return name in known and known[name].kind in _BY_NAME


def extras(function: Any, first: int = 2) -> dict[str, bool]:
    """The arguments that a callable takes after the ``first`` ones, and whether each must be given; those that cannot
    be seen are left out. Whether one must be given is known of plain functions and modules only: decorators, hooks and
    calls of one's own may supply it.

    Example:
        >>> extras(lambda x, t, label, size=None: x)
        {'label': True, 'size': False}
    """
    if type(function) is FunctionType and not vars(function):  # nothing wraps it, and it takes no more
        code = function.__code__
        if code.co_argcount + code.co_kwonlyargcount <= first:
            return {}
    known = None if callable(getattr(function, "accepts", None)) else parameters(function)
    if known is None:
        return {}
    plain = _is_plain(function)
    return {p.name: plain and p.default is p.empty for p in list(known.values())[first:] if p.kind in _BY_NAME}


def _is_plain(function: Any) -> bool:
    """Whether a callable is called as its signature says, with nothing around it."""
    if isinstance(function, partial):
        return _is_plain(function.func)
    if isinstance(function, nn.Module):
        own = type(function).__call__ is nn.Module.__call__ and not function._forward_pre_hooks
        return own and _is_plain(function.forward)
    return isinstance(function, FunctionType | MethodType) and not hasattr(function, "__wrapped__")
