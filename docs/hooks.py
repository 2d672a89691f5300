"""What MkDocs does beyond its plugins: formulas as MathML, the help of the commands."""

from __future__ import annotations

import html
import io
import os
import re
from contextlib import redirect_stdout
from typing import Any

import tyro
from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_HELP = re.compile(r"^<!-- help: (.*) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """`<!-- help: train -->` becomes what `iir-fast train --help` prints."""
    return _HELP.sub(lambda found: f"```text\n{_help_of(found[1].split())}\n```", markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML, which browsers render without a script."""
    return _FORMULA.sub(
        lambda found: convert(html.unescape(found[2]), display="inline" if found[1] == "span" else "block"), content
    )


def _help_of(command: list[str]) -> str:
    from iir_fast.app.cli import Command

    os.environ["COLUMNS"] = "80"
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            tyro.cli(Command, prog="iir-fast", args=[*command, "--help"])
    except SystemExit as end:
        if end.code:
            raise ValueError(f"iir-fast has no command {' '.join(command)!r}.") from None
    return printed.getvalue().rstrip()
