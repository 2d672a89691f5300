"""Files that are whole or not there: written aside, then renamed, so that a killed process and a full disk leave what
was there before.

What is being written is locked, so that what a killed process leaves can be told from it and removed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

from iir_fast.app.progress import log

PARTS = f"*.iir-{'[0-9a-f]' * 32}.part"
"""What is being written, for `Path.glob`."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a write that no other file can have."""


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Make an empty file to write to, which takes the place of `file` when the block ends, and goes when it raises.

    Its folder is there. A link of that name is replaced, not followed.

    Raises:
        IsADirectoryError: `file` is a folder.
        OSError: it could not be written, e.g. because the disk is full; what was there before still is.
    """
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    with _aside(file, partial(Path.touch, exist_ok=False), partial(Path.unlink, missing_ok=True)) as aside:
        yield aside
        aside.replace(file)


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Make an empty folder beside `folder`; what is left of it when the block ends goes."""
    with _aside(folder, Path.mkdir, partial(shutil.rmtree, ignore_errors=True)) as aside:
        yield aside


def write_whole(file: Path, content: str | bytes) -> None:
    """Write a file, text in UTF-8, as `whole_file` does."""
    with whole_file(file) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def open_text(file: Path) -> TextIO:
    """Open a file to write text to, names of files among it that are no UTF-8."""
    return file.open("w", encoding="utf-8", errors="backslashreplace", newline="")


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder; what living ones write stays, as it is locked."""
    for aside in folder.glob(PARTS):
        with suppress(OSError):  # being written, or gone by now
            descriptor = os.open(aside, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
            finally:
                os.close(descriptor)


def read_text(file: Path) -> str:
    """Read text in UTF-8; where a file holds something else, a ValueError names it."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeError as error:
        raise ValueError(f"{file} is no text in UTF-8: {error}.") from error


def in_short(error: BaseException) -> str:
    """Say in one line what the error of a library says, which may be a page, quote a file or be empty."""
    return next(iter(str(error).strip().splitlines()), "")[:200] or type(error).__name__


def one_line(names: Iterable[object]) -> str:
    """List names that stand in a file in one line, those with line breaks and the like as Python writes them."""
    return ", ".join(name if name and name.isprintable() else repr(name) for name in map(str, names))


def read_object(file: Path) -> dict[str, Any]:
    """Read the JSON object that a file holds; where it is damaged, a ValueError names the file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged: it holds no JSON object")
    return content


def set_aside(file: Path, reason: object) -> None:
    """Rename a damaged file, so that nothing of it is lost and a new one can be written, and say so."""
    names = (file.with_name(f"{file.name}.damaged-{number}") for number in count(1))
    kept = next(name for name in names if not name.exists())
    file.rename(kept)
    log(f"{reason}; it is kept as {kept.name}.")


@contextmanager
def _aside(place: Path, make: Callable[[Path], None], remove: Callable[[Path], None]) -> Iterator[Path]:
    aside, descriptor = _locked(place, make)
    try:
        yield aside
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(f"{place} could not be written ({error.strerror}); what was there before still is.") from error
    finally:
        remove(aside)
        os.close(descriptor)


def _locked(place: Path, make: Callable[[Path], None]) -> tuple[Path, int]:
    """Make what is written aside, and lock it: its path, and the descriptor that holds the lock."""
    while True:
        # Not the whole name, which may be as long as names can be.
        aside = place.with_name(f"{place.name[:40]}.iir-{uuid4().hex}.part")
        try:
            make(aside)
        except OSError as error:
            error.filename = str(place)
            raise
        with suppress(FileNotFoundError):  # taken for a leftover before it was locked
            descriptor = os.open(aside, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks, where nothing is taken for a leftover
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if aside.exists():
                return aside, descriptor
            os.close(descriptor)
