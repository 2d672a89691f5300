"""Stages that cannot harm each other: each in a process of its own, with a time limit and a file for what it finds.

A stage is an iterable of `Findings`. `keep` runs one in the child's process, `attend` starts such a child and waits for
it, `run` attends to several within one budget. Nothing here needs more than the standard library.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
OUTPUT_CHARACTERS = 4000
"""So much of the end of a failed stage's output is kept."""
SECONDS_TO_DIE = 5.0
"""A process that the driver holds does not die at once; what comes after it does not wait for that."""

Record = dict[str, Any]
Command = Callable[[str, Path], Sequence[str]]
"""From a stage's name and the file for its record to the command that runs it."""


class Skipped(Exception):
    """What the stage is about cannot be had here; the message says why."""


class Fault(Exception):
    """What the stage found is wrong, in one sentence that needs no traceback."""


class Findings(NamedTuple):
    """What a stage knows so far."""

    figures: dict[str, Any]
    """For JSON; added to those found before."""
    lines: Sequence[str] = ()
    """The same for a reader, in place of the lines before."""


def one_line(error: BaseException) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def trace() -> str:
    """The traceback of the error at hand."""
    return without_root(traceback.format_exc())


def without_root(text: str) -> str:
    """Text in which files of this repository go by their place in it."""
    return text.replace(f"{ROOT}{os.sep}", "").replace(str(ROOT), ".")


def keep(findings: Iterable[Findings], path: Path | None) -> Record:
    """Run a stage in this process; what it finds is in the file as soon as it is found, whatever comes next.

    Args:
        findings: the stage.
        path: where the record goes, JSON; None: nowhere but into what is returned.

    Returns:
        The record: "status" ("ok", "failed" or "skipped"), "figures", "lines", and, unless it is ok, "reason" and
        perhaps "traceback".
    """
    record: Record = {"status": "running", "figures": {}, "lines": []}
    try:
        for figures, lines in findings:
            record["figures"] |= figures
            record["lines"] = list(lines)
            _write(record, path)
        record["status"] = "ok"
    except Skipped as reason:
        record |= {"status": "skipped", "reason": str(reason)}
    except Fault as fault:
        record |= {"status": "failed", "reason": str(fault)}
    except BaseException as error:  # whatever it is, the record says so
        record |= {"status": "failed", "reason": one_line(error), "traceback": trace()}
    _write(record, path)
    return record


def attend(name: str, command: Sequence[str], path: Path, seconds: float) -> Record:
    """Run a stage in a child and wait for it, no longer than so many seconds.

    Args:
        name: of the stage.
        command: runs it; ends in `keep`.
        path: where the child keeps its record.
        seconds: after these it is killed, and with it all that it has started.

    Returns:
        The child's record with "name" and "seconds". A child that died, however it did, has failed; what it had found
        until then is there, and the end of its "output".
    """
    began = time.monotonic()
    log = path.with_suffix(".log")
    ended = _ended(command, log, seconds)
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = {"status": "running", "figures": {}, "lines": []}
    if record["status"] == "running" or (record["status"] != "failed" and ended):
        record |= {"status": "failed", "reason": f"its process {ended or 'left no record'}"}
    if record["status"] == "failed":
        record["output"] = without_root(log.read_text(encoding="utf-8", errors="replace"))[-OUTPUT_CHARACTERS:]
    return {"name": name, "seconds": round(time.monotonic() - began, 2), **record}


def run(shares: Mapping[str, float], command: Command, seconds: float) -> Iterator[Record]:
    """Run stages one after the other within a budget; none keeps another from running.

    Args:
        shares: name -> its part of the budget. What a stage leaves of its part is there for those after it.
        command: makes a stage's command.
        seconds: the budget of all.

    Yields:
        The record of each stage when it is over, as `attend` returns it.
    """
    end = time.monotonic() + seconds
    reserved = sum(shares.values())
    scale = seconds / reserved
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for name, share in shares.items():
            reserved -= share
            path = Path(folder) / f"{name}.json"
            left = end - time.monotonic() - scale * reserved
            if left > 0:
                yield attend(name, command(name, path), path, left)
            else:
                reason = f"the {seconds:.0f} s for everything were over before it began"
                yield {"name": name, "seconds": 0.0, "status": "failed", "reason": reason, "figures": {}, "lines": []}


def _write(record: Record, path: Path | None) -> None:
    if path is None:
        return
    # Never half a record: the process may be killed at any moment.
    half = path.with_suffix(".half")
    half.write_text(json.dumps(record), encoding="utf-8")
    half.replace(path)


def _ended(command: Sequence[str], log: Path, seconds: float) -> str:
    """How the child ended, in words; empty if with exit status 0."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT, start_new_session=True
        )
        code = None
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"was killed after the {seconds:.0f} s it had"
        finally:
            if code is None or code < 0:
                # Compilers and test runs that it started are of its session.
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
            if code is None:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(SECONDS_TO_DIE)
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit status {code}" if code else ""
