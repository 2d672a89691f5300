"""What MkDocs does beyond its plugins: formulas as MathML, the help of the commands, where the package is."""

from __future__ import annotations

import html
import io
import os
import re
import tempfile
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import tyro
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority

ROOT = Path(__file__).parents[1]
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_HELP = re.compile(r"^<!-- help: (.*) -->$", re.MULTILINE)


@event_priority(100)
def on_config(config: MkDocsConfig) -> None:
    """Tell mkdocstrings where the package is; before it sets up."""
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [_installed_layout().name]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """`<!-- help: train -->` becomes what `iir-fast train --help` prints."""
    return _HELP.sub(lambda found: f"```text\n{_help_of(found[1].split())}\n```", markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML, which browsers render without a script."""
    return _FORMULA.sub(
        lambda found: convert(html.unescape(found[2]), display="inline" if found[1] == "span" else "block"), content
    )


@cache
def _installed_layout() -> tempfile.TemporaryDirectory[str]:
    """A folder, gone with this process, that shows the tree as it is installed: kernels/ as iir_fast.kernels."""
    layout = tempfile.TemporaryDirectory(prefix="iir_fast-docs-")
    package = Path(layout.name, "iir_fast")
    package.mkdir()
    for source in [*(ROOT / "iir_fast").iterdir(), ROOT / "kernels"]:
        (package / source.name).symlink_to(source)
    return layout


def _help_of(command: list[str]) -> str:
    from iir_fast.cli import Command

    os.environ["COLUMNS"] = "80"
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            tyro.cli(Command, prog="iir-fast", args=[*command, "--help"])
    except SystemExit as end:
        if end.code:
            raise ValueError(f"iir-fast has no command {' '.join(command)!r}.") from None
    return printed.getvalue().rstrip()
