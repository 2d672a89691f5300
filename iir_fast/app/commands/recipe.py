"""Recipes, YAML files of training options such as those under configs/, on a command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iir_fast.training import read_recipe


def look(arguments: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Read what follows `--recipe` and `--method`: the options that others depend on, and the recipes, for messages.

    A later recipe goes before an earlier one; `method` is the command line's, if it names one. What is raised is as in
    `read_recipe`.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", type=Path, action="append", default=[])
    parser.add_argument("--method")
    found, _ = parser.parse_known_args(arguments)
    options: dict[str, Any] = {}
    for file in found.recipe:
        options |= read_recipe(file)
    if found.method is not None:
        options["method"] = found.method
    return options, ", ".join(map(str, found.recipe)) or "command line"
