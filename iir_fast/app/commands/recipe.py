"""Recipes, YAML files of training options such as those under configs/, on a command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iir_fast.training import read_yaml


def named_recipe(command: str, arguments: Sequence[str]) -> tuple[Path, dict[str, Any]] | None:
    """The file that follows `--recipe` and the options it holds; None for another command or without one.

    Args:
        command: name of the subcommand.
        arguments: of the whole command line, the subcommand first.

    Raises:
        OSError, ValueError: the file cannot be read, or is no YAML of options.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", type=Path)
    file: Path | None = parser.parse_known_args(arguments)[0].recipe
    if file is None or arguments[0] != command:
        return None
    return file, read_yaml(file.read_text(encoding="utf-8"), str(file))
