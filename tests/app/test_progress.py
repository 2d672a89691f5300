"""Bars and remarks on a narrow terminal."""

from __future__ import annotations

import os
from contextlib import suppress

from rich.console import Console

from iir_fast.app import progress


def test_the_bar_is_whole_on_a_terminal_of_80_columns(monkeypatch, capsys):
    monkeypatch.setattr(progress, "console", Console(stderr=True, width=80))
    with progress.image_progress() as bar:
        note = "total 0.362 class 0.362 accur 1 model 223/s data 3,124/s"
        bar.add_task("train cutmix", total=19840, completed=10143, note=note)
    shown = capsys.readouterr().err
    assert "…" not in shown
    for part in ("train cutmix", "10143/19840", "223/s", "3,124/s"):
        assert part in shown


def test_a_remark_is_one_line_with_its_brackets(monkeypatch, capsys):
    monkeypatch.setattr(progress, "console", Console(stderr=True, width=20))
    progress.log("skipped: a/path/longer/than/the/terminal/is/wide/[0].png")
    assert capsys.readouterr().err == "skipped: a/path/longer/than/the/terminal/is/wide/[0].png\n"


def test_a_log_gets_a_line_at_intervals_and_a_terminal_none(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    for terminal in (False, True):
        monkeypatch.setattr(progress, "console", Console(stderr=True, width=20, force_terminal=terminal))
        with progress.image_progress() as bar:
            task = bar.add_task("train iir", total=80, note="")
            bar.update(task, completed=40, note="total 1.5")
            shown = capsys.readouterr().err
            assert ("train iir  40/80" in shown) != terminal
            assert (shown.splitlines() or [""])[-1].endswith("  total 1.5") != terminal
    monkeypatch.setattr(progress, "console", Console(stderr=True))
    assert list(progress.tracked("ab", "Checking", 2, shown_from=1)) == ["a", "b"]
    assert "Checking" in capsys.readouterr().err


def test_hidden_progress_says_nothing(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_hidden", False)
    progress.hide_progress(True)
    with progress.image_progress() as bar:
        progress.count_images(bar, "localize", 2)(1)
    assert list(progress.tracked("ab", "Checking", 2, shown_from=1)) == ["a", "b"]
    progress.log("said")
    assert capsys.readouterr().err == "said\n"


def test_a_terminal_that_is_closed_stops_no_work(monkeypatch):
    terminal, other_end = os.openpty()
    stream = os.fdopen(other_end, "w")
    monkeypatch.setattr(progress, "console", Console(file=stream, force_terminal=True))
    bars = progress.image_progress()
    bars.live.auto_refresh = False
    bars.start()
    os.close(terminal)
    task = bars.add_task("train", total=2, note="")
    bars.update(task, advance=1)
    bars.stop()
    assert bars.tasks[0].completed == 1
    with suppress(OSError):  # what was to be drawn is still to be written
        stream.close()
