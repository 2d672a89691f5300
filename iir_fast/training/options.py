"""Options out of YAML: read as people write them, checked against the types of a dataclass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from iir_fast.app.files import one_line

Record = TypeVar("Record")

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "text", NoneType: "null"}

LARGEST = 100_000
"""Values of a YAML, which a few lines of aliases can multiply beyond any memory."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with one change: `1e-3` is the number it looks like, not text for want of a point."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def read_yaml(text: str, origin: str) -> dict[str, Any]:
    """Read the mapping that a YAML text holds.

    Args:
        text: the YAML.
        origin: what errors call it, e.g. the file's name.

    Raises:
        ValueError: the text is no YAML, or holds no mapping.
    """
    try:
        values = yaml.load(text, _Loader)
    # PyYAML's constructors let through whatever they meet: a date without a month, a recursion, numbers beyond any.
    except Exception as error:
        raise ValueError(f"{origin} is no YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{origin} holds no mapping of options to values.")
    if _is_beyond(LARGEST, values):
        raise ValueError(f"{origin} unfolds to more than {LARGEST:,} values; write out what it repeats by aliases.")
    return values


def _is_beyond(count: int, value: Any) -> bool:
    """Tell whether a value has more parts than that, each counted as often as an alias names it, without end if within
    itself."""
    waiting = [value]
    while waiting and count >= 0:
        part = waiting.pop()
        count -= 1
        if isinstance(part, Mapping | list | tuple | set):
            waiting.extend(part.values() if isinstance(part, Mapping) else part)
    return count < 0


def from_options(record: type[Record], options: Mapping[str, Any], origin: str) -> Record:
    """Make a dataclass from some of its options; those that are not given have their defaults.

    Args:
        record: the dataclass.
        options: values as YAML gives them: paths as text, tuples as lists.
        origin: what errors call the options' source.

    Raises:
        ValueError: an option does not exist, has a value of another type, or the dataclass refuses it.
    """
    hints = get_type_hints(record)
    known = [field.name for field in fields(record)]  # type: ignore[arg-type]
    if unknown := sorted(str(name) for name in set(options) - set(known)):
        raise ValueError(f"{origin} names {one_line(unknown)}; known options are {', '.join(sorted(known))}.")
    values = {}
    for name, value in options.items():
        try:
            values[name] = _convert(value, hints[name])
        except (TypeError, OverflowError):
            raise ValueError(f"{origin}: {name} is {value!r}; accepted is {_words(hints[name])}.") from None
    try:
        return record(**values)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from error


def _convert(value: Any, hint: Any) -> Any:
    """Convert a value to what its type wants, or raise a TypeError."""
    alternatives = get_args(hint)
    if get_origin(hint) is Literal:
        if value in alternatives:
            return value
    elif get_origin(hint) is tuple:
        if isinstance(value, list | tuple) and len(value) == len(alternatives):
            return tuple(_convert(each, part) for each, part in zip(value, alternatives, strict=True))
    elif alternatives:
        for alternative in alternatives:
            try:
                return _convert(value, alternative)
            except TypeError:
                continue
    elif is_dataclass(hint) and isinstance(value, hint):  # type: ignore[arg-type]
        return value
    elif hint is Path and isinstance(value, str | Path):
        return Path(value)
    elif hint is float and type(value) in (int, float):
        return float(value)
    elif type(value) is hint:
        return value
    raise TypeError


def _words(hint: Any) -> str:
    alternatives = get_args(hint)
    if get_origin(hint) is Literal:
        return ", ".join(map(str, alternatives))
    if get_origin(hint) is tuple:
        return f"[{', '.join(map(_words, alternatives))}]"
    if alternatives:
        return " or ".join(map(_words, alternatives))
    return WORDS.get(hint, str(hint))
