"""`iir-fast compare`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from iir_fast.app.progress import log


@dataclass(frozen=True)
class Compare:
    """Train and evaluate the rows of a YAML file from several seeds, each run in its own process; print the table.

    Runs that the folder holds are kept, so the same command goes on after Ctrl-C. Exit status 1: a run failed.
    """

    file: tyro.conf.Positional[Path]
    """YAML with title, seeds, maps, base, data, rows and published figures of others; see configs/compare."""
    out: tyro.conf.Positional[Path]
    """Folder of the runs, of results.json (every run's figures) and table.md (the tables and how they were made)."""
    data: str | None = None
    """What to train on, in place of what the file says."""
    jobs: int = 1
    """Runs at a time; they share torch's threads."""

    def run(self) -> None:
        from iir_fast.comparison import read_comparison, run_comparison, tables

        comparison = read_comparison(self.file, self.data)
        options = ["--data", self.data] if self.data else []
        options += ["--jobs", str(self.jobs)] if self.jobs > 1 else []
        command = shlex.join(["iir-fast", "compare", str(self.file), str(self.out), *options])
        results = run_comparison(comparison, self.out, self.jobs, command, log)
        print(tables(comparison, results), end="")
        if any(result.failure for result in results):
            sys.exit(1)
