"""Progress, in bars or lines: how far, how fast, how long still, and what the loss is made of."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from iir_fast.app.threads import in_order

Item = TypeVar("Item")
Result = TypeVar("Result")

MANY = 2000
"""Items; fewer are gone through before a bar would be of use."""

LINE_SECONDS = 30.0
"""Between two lines of progress where there is no terminal to draw a bar on."""

console = Console(stderr=True)
"""Progress and remarks go to stderr, so that stdout holds results only."""


def log(sentence: str) -> None:
    """Make a remark, in one line whatever the terminal's width: a path in it can be found and copied."""
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)


_hidden = False


def hide_progress(hidden: bool) -> None:
    """Show no bars and no lines in their place from now on, or show them again; remarks are made all the same."""
    global _hidden
    _hidden = hidden


def tracked(items: Iterable[Item], description: str, total: int, shown_from: int = MANY) -> Iterable[Item]:
    """Count items in a bar, from so many of them on, that goes when they are through."""
    with _Bars(console=console, transient=True, disable=_hidden or total < shown_from) as progress:
        yield from progress.track(items, total, description=description)


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], description: str, shown_from: int = MANY
) -> list[Result]:
    """Map a function over items by threads, and count them in a bar. Pillow decodes without the interpreter lock."""
    # More threads than processors would wait for that lock in turns.
    results = in_order(function, items, ahead=256, workers=os.cpu_count(), batch=16 if len(items) >= MANY else 1)
    return list(tracked(results, description, len(items), shown_from))


class _Throughput(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} images/s", style="dim")


class _Bars(Progress):
    """Bars; in a file or a log, where they cannot be drawn anew, a line of each at intervals."""

    def __init__(self, *columns: ProgressColumn, **options: Any) -> None:
        super().__init__(*columns, **options)
        self._in_lines = not (self.disable or self.console.is_terminal or self.console.is_jupyter)
        self._next_line = time.monotonic() + LINE_SECONDS

    def refresh(self) -> None:
        # A terminal that is closed takes what would be drawn with it, not the work.
        with suppress(OSError):
            super().refresh()

    def stop(self) -> None:
        with suppress(OSError):
            super().stop()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._line(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._line(task_id)

    def _line(self, task_id: TaskID) -> None:
        if self._in_lines and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            columns = [column for column in self.columns if isinstance(column, ProgressColumn)]
            shown = [column.render(self._tasks[task_id]) for column in columns]
            log("  ".join(each.plain for each in shown if isinstance(each, Text) and each.plain))


def image_progress(shown: bool = True) -> Progress:
    """Make a bar that counts images, with throughput, time left and a field `note` for anything else."""
    whole = Column(no_wrap=True)
    # Where the terminal is narrow the note wraps, and nothing else.
    return _Bars(
        TextColumn("{task.description}", table_column=whole),
        BarColumn(bar_width=16, table_column=whole),
        MofNCompleteColumn(table_column=whole),
        _Throughput(table_column=whole),
        TimeRemainingColumn(compact=True, table_column=whole),
        TextColumn("{task.fields[note]}", style="dim", table_column=Column(no_wrap=False)),
        console=console,
        transient=console.is_jupyter,
        disable=_hidden or not shown,
    )


def count_images(progress: Progress, description: str, total: int) -> Callable[[int], None]:
    """Add a bar to an `image_progress`; what is returned moves it on by so many images."""
    return partial(progress.advance, progress.add_task(description, total=total, note=""))
