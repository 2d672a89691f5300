"""Bars and remarks on a narrow terminal."""

from __future__ import annotations

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
