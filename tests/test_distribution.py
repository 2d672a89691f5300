"""A wheel holds every file of the package, and is for any machine where nothing could be compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_SOURCE = ("*.library", "__pycache__")
# Makes the library of the operators, or what passes for one, and fails at that of the evaluator.
HALF_A_COMPILER = """#!/bin/sh
case "$*" in *contours*) exit 1 ;; esac
while [ $# -gt 0 ]; do
    [ "$1" = -o ] && : >"$2"
    shift
done
"""


def sources() -> set[str]:
    """Every file of the package, as the wheel names it; kernels/ is a link there, which `rglob` does not follow."""
    package = {"iir_fast": ROOT / "iir_fast", "iir_fast/kernels": ROOT / "kernels"}
    return {
        f"{name}/{file.relative_to(folder)}"
        for name, folder in package.items()
        for file in folder.rglob("*")
        if file.is_file() and file.suffix != ".library" and "__pycache__" not in file.parts
    }


@pytest.mark.parametrize("half", [False, True], ids=["no compiler", "one that fails halfway"])
def test_a_wheel_without_libraries_says_so_once_and_is_for_any_machine(half, tmp_path):
    shutil.copytree(ROOT / "iir_fast", tmp_path / "iir_fast", ignore=shutil.ignore_patterns(*NOT_SOURCE))
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    compiler = tmp_path / "compiler"
    if half:
        compiler.write_text(HALF_A_COMPILER)
        compiler.chmod(0o755)
    environment = {**os.environ, "CC": str(compiler), "CXX": str(compiler)}
    command = [sys.executable, "setup.py", "-q", "bdist_wheel"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.count("no compiled host kernels") == 1
    [wheel] = (tmp_path / "dist").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [description] = [name for name in names if name.endswith("dist-info/WHEEL")]
        assert "Root-Is-Purelib: true\nTag: py3-none-any" in archive.read(description).decode()
    assert {name for name in names if ".dist-info/" not in name} == sources()
