"""The command line: train localizers on image labels alone, measure them, look at them, use them."""

from __future__ import annotations

import os
import re
import select
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from functools import reduce
from io import TextIOWrapper
from operator import or_
from pkgutil import resolve_name
from typing import Annotated, Any, TextIO

import tyro

from iir_fast import __version__
from iir_fast.app.interruption import Interrupted
from iir_fast.app.progress import hide_progress, log

INTERRUPTED = 130
"""Exit status of a command that a signal ended, as shells have it for SIGINT."""
BROKEN_PIPE = 141
"""Exit status of a command whose output nothing reads any more, as in `... | head -1`, as shells have it."""

COMMANDS = {
    "train": ("train:Train", "train a localizer, then evaluate it on the test split"),
    "evaluate": ("evaluate:Evaluate", "evaluate the localizer of a run by the field's metrics"),
    "score": ("evaluate:Score", "evaluate score maps on disk, whoever made them"),
    "confidence": ("confidence:Confidence", "95 % intervals of an evaluation, or a test of two"),
    "report": ("report:Report", "write one HTML page of a run's evaluation"),
    "localize": ("localize:Localize", "find the object in images: boxes, overlays, masks"),
    "autolabel": ("autolabel:Autolabel", "make a detector's data set of class folders"),
    "export": ("export:Export", "write a localizer as one file, .pt2 or .onnx"),
    "compare": ("compare:Compare", "train and evaluate the rows of a YAML file, in one table"),
    "data": ("data:Data", "check a data set, or pack it into shards"),
    "plan": ("plan:Plan", "count the memory of a training step per device"),
    "demo": ("demo:Demo", "train CAM and IIR on generated images, in minutes"),
    "doctor": ("doctor:Doctor", "print versions and devices, check the operators"),
}
"""Every command: where it is, below `iir_fast.app.commands`, and what it does. It is imported when it is called."""
DEFAULTS = {"train": "train:train_defaults", "plan": "plan:plan_defaults"}
"""Commands whose options depend on other options, and what finds their defaults."""
_LISTED = "\n".join(f"  {name:<12}{summary}" for name, (_, summary) in COMMANDS.items())
HELP = f"""usage: iir-fast [-h] [--version] [--quiet] [--debug] COMMAND ...

Train localizers on image labels alone, measure them, look at them, use them.

commands:
{_LISTED}

options:
  -h, --help  show this help and exit; COMMAND --help tells a command's options
  --version   print the version and exit
  --quiet     with any command: no progress; results, remarks and faults remain
  --debug     with any command: show the traceback of a fault
"""


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
    """Run a command; faults of the input end with one sentence and exit status 2, with `--debug` after a traceback."""
    with _standard_output():
        _run(list(map(_at_home, sys.argv[1:] if arguments is None else arguments)))


def _run(given: list[str]) -> None:
    hide_progress("--quiet" in given)
    arguments = [each for each in given if each not in ("--quiet", "--debug")]
    try:
        if answer := _answer(arguments):
            print(answer)
            return
        read_command(arguments).run()
    except (Interrupted, KeyboardInterrupt) as interruption:
        log(str(interruption) or "interrupted.")
        sys.exit(INTERRUPTED)
    except BrokenPipeError as error:
        if _is_closed(sys.stdout):
            raise
        log(f"iir-fast: {error}")
        sys.exit(2)
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError, MemoryError) as error:
        if "--debug" in given:
            traceback.print_exc()
        # Below it, torch's errors have advice and the stack of its C++.
        first_line = str(error).strip().partition("\n")[0]
        log(f"iir-fast: {first_line or 'there is not enough memory.'}")
        sys.exit(2)


def _answer(arguments: Sequence[str]) -> str | None:
    """Say what needs no command; None where one is called. Raise a ValueError where there is no such command."""
    first = arguments[0] if arguments else None
    if first in ("-h", "--help"):
        return HELP.rstrip()
    if first == "--version":
        return f"iir-fast {__version__}"
    if first in COMMANDS or (first or "").startswith("--tyro-"):
        return None
    if first is None:
        raise ValueError(f"a command is missing; accepted are {', '.join(COMMANDS)}.")
    meant = get_close_matches(first, COMMANDS, 1)
    accepted = f"did you mean {meant[0]}?" if meant else f"accepted are {', '.join(COMMANDS)}."
    raise ValueError(f"command is {first!r}; {accepted}")


def read_command(arguments: Sequence[str]) -> Any:
    """Read the command that arguments name, with its options: an object whose `run` runs it.

    In place of a name there may be options of tyro's own, which write the completion of a shell. Ends the process, as
    tyro does, where an option is at fault or help is asked for.
    """
    name, *options = arguments
    if name not in COMMANDS:
        named: list[Any] = [Annotated[command_class(each), tyro.conf.subcommand(each)] for each in COMMANDS]
        every: Any = reduce(or_, named)
        return tyro.cli(every, prog="iir-fast", args=arguments)
    default = _resolve(DEFAULTS[name])(options) if name in DEFAULTS else None
    given = {} if default is None else {"default": default}
    return tyro.cli(command_class(name), prog=f"iir-fast {name}", args=options, **given)


def command_class(name: str) -> Any:
    """Import a command's class."""
    return _resolve(COMMANDS[name][0])


def _resolve(place: str) -> Any:
    return resolve_name(f"iir_fast.app.commands.{place}")
