"""What MkDocs does beyond its plugins: formulas as MathML, the help of the commands, where the package is."""

from __future__ import annotations

import html
import io
import os
import re
import tempfile
from contextlib import redirect_stdout
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
    """Show mkdocstrings the tree as it is installed: kernels/ as iir_fast.kernels."""
    layout = Path(tempfile.mkdtemp(prefix="iir_fast-docs-"))
    (layout / "iir_fast").mkdir()
    for source in [*(ROOT / "iir_fast").iterdir(), ROOT / "kernels"]:
        (layout / "iir_fast" / source.name).symlink_to(source)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(layout)]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """`<!-- help: train -->` becomes what `iir-fast train --help` prints."""
    return _HELP.sub(lambda found: f"```text\n{_help_of(found[1].split())}\n```", markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML, which browsers render without a script."""
    return _FORMULA.sub(
        lambda found: convert(html.unescape(found[2]), display="inline" if found[1] == "span" else "block"), content
    )


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
