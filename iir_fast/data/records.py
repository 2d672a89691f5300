"""Faults of a data set, and the text files of records in which most of them are found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias

SPLITS = ("train", "val", "test")
"""The splits that are looked for."""
FaultKind: TypeAlias = Literal[
    "missing file",
    "corrupt line",
    "corrupt shard",
    "duplicate id",
    "missing line",
    "unlisted id",
    "no annotation",
    "label",
    "box outside",
    "image size",
    "mask size",
    "missing image",
    "unreadable image",
    "missing mask",
    "unreadable mask",
    "in two splits",
]

LONGEST = 2000
"""Characters of a fault's message."""
SOME_CLASSES = 100_000
"""So many classes are believed, however few the images of a split are."""


class Fault(ValueError):
    """One thing that is wrong with a data set: found by the readers, raised by the data sets, collected by the check.

    Attributes:
        kind: what sort of fault it is.
        message: a sentence that names the file, and the line where there is one.
    """

    def __init__(self, kind: FaultKind, message: str) -> None:
        # What a file that is no text has in place of a line may be all of it.
        message = message if len(message) <= LONGEST else f"{message[:LONGEST]} ..."
        super().__init__(kind, message)
        self.kind: FaultKind = kind
        self.message = message

    def __str__(self) -> str:
        return self.message


OnFault: TypeAlias = Callable[[Fault], None]
"""What a reader does with a fault: raise it, or keep it, pass over what is faulty and read on."""


def raise_fault(fault: Fault) -> NoReturn:
    """Stop at the first fault."""
    raise fault


def read_records(file: Path, form: str, separator: str | None, on_fault: OnFault) -> Iterator[tuple[int, list[str]]]:
    """Read number and fields of every line of UTF-8 text that is not blank; one that is not of the form is a fault.

    The form names the fields, separated as they are: by `separator` or, where that is None, by spaces.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist or is not a file")
    count = len(form.split(separator))
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            fields = line.rstrip("\n").split(separator)
            if len(fields) == count and fields[0] and "\ufffd" not in line:
                yield number, fields
            elif line.strip():
                text = f"{at(file, number)}: {form} in UTF-8 is accepted, got {line.strip()!r}"
                on_fault(Fault("corrupt line", text))


def holds_text(file: Path) -> bool:
    """Find out whether something has that name, unless it is a file of 0 bytes; its reader refuses what is no file."""
    return os.path.lexists(file) and not (file.is_file() and file.stat().st_size == 0)


def at(file: Path, line: int) -> str:
    """Say where something stands, for a message."""
    return f"{file}, line {line}"


def check_path(path: str, where: str) -> None:
    """Raise a fault unless a path is one line, relative, and stays below its root."""
    if not path or path.startswith("/") or ".." in path.split("/") or "\n" in path or "\0" in path:
        raise Fault("corrupt line", f"{where}: path must be relative to the root and stay below it, got {path!r}")


def parse_box(numbers: Sequence[str], where: str, *, inclusive: bool) -> tuple[float, ...]:
    """Read the edges x0, y0, x1, y1 of a box, in pixels, or raise a fault: no numbers, out of order or negative.

    Where they are `inclusive`, x1 and y1 are the last column and row, so that x0 = x1 is a box one pixel wide.
    """
    try:
        x0, y0, x1, y1 = map(float, numbers)
    except ValueError:
        raise Fault("corrupt line", f"{where}: x0,y0,x1,y1 must be numbers, got {','.join(numbers)!r}") from None
    if not (0 <= x0 <= x1 and 0 <= y0 <= y1) or (not inclusive and (x0 == x1 or y0 == y1)):
        order = "0 <= x0 <= x1 and 0 <= y0 <= y1" if inclusive else "0 <= x0 < x1 and 0 <= y0 < y1"
        raise Fault("corrupt line", f"{where}: {order} must hold, got {','.join(numbers)!r}")
    return x0, y0, x1, y1


def parse_whole(text: str, what: str, where: str, least: int = 0) -> int:
    """Read a whole number from `least` up, or raise a fault."""
    # Python itself refuses numbers of more than 4300 digits.
    if not (text.isascii() and text.isdigit() and len(text) <= 80 and int(text) >= least):
        raise Fault("corrupt line", f"{where}: {what} must be a whole number from {least} up, got {text!r}")
    return int(text)


def class_limit(images: int) -> int:
    """Tell below what the labels of a split without class names must be: each class up to the largest costs memory."""
    return max(SOME_CLASSES, images)


def name_classes(named: Iterable[tuple[int, str]], file: Path, on_fault: OnFault) -> tuple[str, ...]:
    """Name the classes of a training split, in the order of the labels, by (label, name of its class) of every image.

    Faults of the file: a label with two names, a name with two labels, a label that never occurs.
    """
    names: dict[int, str] = {}
    labels: dict[str, int] = {}
    for label, name in dict.fromkeys(named):
        if names.setdefault(label, name) != name:
            on_fault(Fault("label", f"{file}: label {label} is given to {names[label]!r} and to {name!r}"))
        if labels.setdefault(name, label) != label:
            on_fault(Fault("label", f"{file}: {name!r} has the labels {labels[name]} and {label}"))
    count = max(names, default=-1) + 1
    if missing := sorted(set(range(count)) - set(names)):
        shown = ", ".join(map(str, missing[:20]))
        on_fault(Fault("label", f"{file}: labels must be 0 to K-1 for K classes; up to {count - 1}, none is {shown}"))
    return tuple(names.get(label, f"no image of label {label}") for label in range(count))
