"""A command line that is plainly right is run without typer's parser.

That one loads pydantic, for as much processor time as reading and hashing a hundred MiB; a backup of a quiet
volume is little more than that. What a command is and takes is declared to typer alone; help, and whatever
may be wrong, stay with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from typer import Typer
from typer.models import OptionInfo

Command = Callable[..., None]


class _Unclear(Exception):
    """Typer must have a look."""


def plain_call(app: Typer, words: Sequence[str]) -> Callable[[], None] | None:
    """Give the call that the words mean; None where it is not plain which."""
    try:
        command, rest = _command(app, words)
        return partial(command, **_arguments(command, rest))
    except (_Unclear, ValueError):
        return None


def _command(app: Typer, words: Sequence[str]) -> tuple[Command, Sequence[str]]:
    """Find the command and the words behind it."""
    if not words:
        raise _Unclear
    for group in app.registered_groups:
        if group.name == words[0] and group.typer_instance:
            return _command(group.typer_instance, words[1:])
    for info in app.registered_commands:
        if info.callback and info.callback.__name__ == words[0]:
            return info.callback, words[1:]
    raise _Unclear


def _arguments(command: Command, words: Sequence[str]) -> dict[str, Any]:
    """Read options, each `--name value` or `--name=value`, a flag alone."""
    hints = get_type_hints(command, include_extras=True)
    del hints["return"]
    names = dict(_option(name, hint) for name, hint in hints.items())
    found: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        option, equals, text = word.partition("=")
        if option not in names:
            raise _Unclear
        name = names[option]
        kind, several = _kind(hints[name])
        if kind is bool:
            if equals:
                raise _Unclear
            found[name] = True
            continue
        value = kind(text if equals else next(rest, "-"))
        if not equals and str(value).startswith("-"):  # forgotten, or an option
            raise _Unclear
        found[name] = [*found.get(name, []), value] if several else value
    given = set(found) | set(command.__kwdefaults__ or {})
    if set(hints) - given:
        raise _Unclear
    return found


def _option(name: str, hint: Any) -> tuple[str, str]:
    """Give the option of a parameter, as it is declared to typer, and the parameter."""
    declared = [extra for extra in get_args(hint)[1:] if isinstance(extra, OptionInfo)]
    # Within Annotated, what typer.Option calls the default is the first of the names.
    named = [each for info in declared for each in (info.default, *(info.param_decls or ()))]
    if len(named) != 1 or declared[0].callback or declared[0].parser:
        raise _Unclear
    return str(named[0]), name


def _kind(hint: Any) -> tuple[Callable[[str], Any], bool]:
    """Give what a text is made into, and whether the option may be repeated."""
    base = get_args(hint)[0]
    kinds = get_args(base) if get_origin(base) in (Union, UnionType) else (base,)
    kind, *more = [each for each in kinds if each is not NoneType]
    several = get_origin(kind) is list
    if several:
        (kind,) = get_args(kind)
    if more or not (kind in (str, bool, float, Path) or issubclass(kind, Enum)):
        raise _Unclear
    return kind, several
