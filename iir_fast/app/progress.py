"""Progress bars: how far, how fast, how long still, and what the loss is made of."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

console = Console(stderr=True)
"""Progress and remarks go to stderr, so that stdout holds results only."""


def say(sentence: str) -> None:
    """A remark, in one line whatever the terminal's width: a path in it can be found and copied."""
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)


class _Throughput(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} images/s", style="dim")


def image_progress(shown: bool = True) -> Progress:
    """A bar that counts images, with throughput, time left and a field `note` for anything else."""
    # Where the terminal is narrow the note wraps, and nothing else.
    return Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=16, table_column=Column(no_wrap=True)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        _Throughput(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}", style="dim", table_column=Column(no_wrap=False)),
        console=console,
        disable=not shown,
    )
