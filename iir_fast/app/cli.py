"""The command line: train localizers on image labels alone, measure them, look at them, use them."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import tyro

from iir_fast.app.commands.compare import Compare
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

Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Score, tyro.conf.subcommand("score")]
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; faults of the input end with one sentence and exit status 2."""
    logging.basicConfig(format="%(message)s")
    arguments = list(map(_at_home, sys.argv[1:] if arguments is None else arguments))
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
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        log(f"iir-fast: {error}")
        sys.exit(2)
