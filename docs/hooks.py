"""What MkDocs does beyond its plugins: `<!-- help: train -->` becomes what `iir-fast train --help` prints."""

from __future__ import annotations

import io
import os
import re
from contextlib import redirect_stdout
from typing import Any

from iir_fast.app import cli

_HELP = re.compile(r"^<!-- help: (.*) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the help of the commands where the page asks for it."""
    return _HELP.sub(lambda found: f"```text\n{_help_of(found[1].split())}\n```", markdown)


def _help_of(command: list[str]) -> str:
    os.environ["COLUMNS"] = "80"
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            cli.main([*command, "--help"])
    except SystemExit as end:
        if end.code:
            raise ValueError(f"iir-fast has no command {' '.join(command)!r}.") from None
    return printed.getvalue().rstrip()
