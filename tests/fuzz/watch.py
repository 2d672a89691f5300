"""What counts as a finding: errors that are no sentence, and what a process does beyond its folders."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Any

import iir_fast

OURS = str(Path(iir_fast.__file__).resolve().parent.parent)
MAPPED = (ValueError, OSError, RuntimeError, ModuleNotFoundError)
"""What the command line says in one sentence."""
CHANGES = {
    **dict.fromkeys(
        ("os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "shutil.rmtree", "os.utime"), (0,)
    ),
    "os.rename": (0, 1),
    "os.link": (1,),
    "os.symlink": (1,),
}
"""Events of the interpreter that change files, and which arguments name these."""
STARTS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "socket.connect",
    "socket.getaddrinfo",
    "ctypes.dlopen",
)
"""Events that no input may lead to, but for the loading of libraries that are installed."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Breach(BaseException):
    """Raised in place of what the process was about to do."""


class Started(BaseException):
    """Raised in place of a process that the command may start: its input was accepted."""


class Watch:
    """Keeps this process, and those forked from it, to some folders; there is no way back.

    Attributes:
        folders: below which files may be changed.
        may_start: whether a command may start processes, which are not started here.
        breaches: what was stopped.
        broken: files that were broken on purpose, to be put back before the next input.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders, self.may_start = folders, False
        self.breaches: list[str] = []
        self.broken: list[Path] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in STARTS and arguments[0] is not None:
            if event == "ctypes.dlopen" and str(arguments[0]).startswith((OURS, sys.prefix)):
                return
            if self.may_start and event == "subprocess.Popen":
                raise Started
            self._breach(f"{event} {arguments[0]!r}")
        elif event == "open" and isinstance(arguments[0], str | bytes) and (arguments[2] or 0) & WRITING:
            self._look("writes", arguments[0])
        elif event in CHANGES and not any(isinstance(each, int) and each > 2 for each in arguments[1:]):
            # What names a file below an open folder, as rmtree does, has been seen when that was opened or removed.
            for each in CHANGES[event]:
                self._look(event, arguments[each])

    def _look(self, what: str, path: Any) -> None:
        if isinstance(path, int):
            return
        parent, name = os.path.split(os.path.abspath(os.fsdecode(path)))
        place = os.path.join(os.path.realpath(parent), name)
        if not f"{place}/".startswith((*(f"{os.path.realpath(folder)}/" for folder in self.folders), "/dev/")):
            self._breach(f"{what} {place}")

    def _breach(self, text: str) -> None:
        self.breaches.append(text)
        raise Breach(text)


def objection(error: BaseException) -> str | None:
    """Say what is wrong with an error that came out of a reader; None: it is a sentence of our own."""
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    is_ours = innermost.filename.startswith(OURS) and "/tests/" not in innermost.filename
    where = f"{Path(innermost.filename).name}:{innermost.lineno} in {innermost.name}"
    text = str(error)
    if not isinstance(error, MAPPED) or isinstance(error, RecursionError | NotImplementedError):
        return f"{type(error).__name__} at {where}"
    if isinstance(error, OSError) and (error.filename or is_ours):
        return None
    if isinstance(error, RuntimeError) and "allocate memory" in text:
        return None
    if not is_ours or not text:
        return f"{type(error).__name__} of a library, at {where}"
    if "\n" in text.strip():
        return f"{type(error).__name__} of several lines, at {where}"
    return f"{type(error).__name__} of {len(text):,} characters, at {where}" if len(text) > 20_000 else None
