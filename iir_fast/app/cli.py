"""The command line: train localizers on image labels alone, measure them, look at them, use them."""

from __future__ import annotations

import logging
import os
import re
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from io import TextIOWrapper
from typing import Annotated, TextIO

import tyro

from iir_fast.app.commands.compare import Compare
from iir_fast.app.commands.confidence import Confidence
from iir_fast.app.commands.data import Data
from iir_fast.app.commands.demo import Demo
from iir_fast.app.commands.doctor import Doctor
from iir_fast.app.commands.evaluate import Evaluate, Score
from iir_fast.app.commands.export import Export
from iir_fast.app.commands.localize import Localize
from iir_fast.app.commands.plan import Plan, plan_defaults
from iir_fast.app.commands.report import Report
from iir_fast.app.commands.train import Train, train_defaults
from iir_fast.app.progress import log
from iir_fast.training import Interrupted

INTERRUPTED = 130
"""Exit status of a command that a signal ended, as shells have it for SIGINT."""
BROKEN_PIPE = 141
"""Exit status of a command whose output nothing reads any more, as in `... | head -1`, as shells have it."""

Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Score, tyro.conf.subcommand("score")]
    | Annotated[Confidence, tyro.conf.subcommand("confidence")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Localize, tyro.conf.subcommand("localize")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)
DEFAULTS: dict[str, Callable[[Sequence[str]], Train | Plan | None]] = {"train": train_defaults, "plan": plan_defaults}
"""Commands whose options depend on other options, and what finds their defaults."""


def _at_home(argument: str) -> str:
    """Expand the "~" that an argument's path begins with: shells leave it alone behind "=" and ":"."""
    begins = r"^((?:--[\w-]+=)?(?:[a-z]+:)?)(~[^/]*)"
    return re.sub(begins, lambda found: found[1] + os.path.expanduser(found[2]), argument)


def _is_closed(stream: TextIO) -> bool:
    """Find out whether what a pipe is read by has gone."""
    poll = select.poll()
    with suppress(OSError):  # it is no file
        poll.register(stream.fileno(), 0)  # asks for nothing but errors
    return bool(poll.poll(0))


@contextmanager
def _standard_output() -> Iterator[None]:
    """Let names of files that are no UTF-8 be printed, and end quietly where what reads the output has gone."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes it once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; faults of the input end with one sentence and exit status 2."""
    logging.basicConfig(format="%(message)s")
    with _standard_output():
        _run(list(map(_at_home, sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> None:
    parse = partial(tyro.cli, Command, prog="iir-fast", description=__doc__, args=arguments)
    try:
        found = DEFAULTS[arguments[0]](arguments) if arguments and arguments[0] in DEFAULTS else None
        command = parse(default=found) if found else parse()
        command.run()
    except Interrupted as interruption:
        log(str(interruption))
        sys.exit(INTERRUPTED)
    except KeyboardInterrupt:
        log("interrupted.")
        sys.exit(INTERRUPTED)
    except BrokenPipeError as error:
        if _is_closed(sys.stdout):
            raise
        log(f"iir-fast: {error}")
        sys.exit(2)
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        log(f"iir-fast: {error}")
        sys.exit(2)
