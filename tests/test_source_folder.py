"""What Python says in the folder of the sources when another copy is installed, or none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import iir_fast

WITHOUT_FINDER = """
import sys
sys.meta_path[:] = [each for each in sys.meta_path if "editable" not in getattr(each, "__module__", "")]
sys.path.insert(0, sys.argv[1])
import iir_fast
"""


def test_it_says_how_to_install(tmp_path):
    (tmp_path / "iir_fast").mkdir()
    for name in ("__init__.py", "functional.py"):
        (tmp_path / "iir_fast" / name).write_text(Path(iir_fast.__file__).with_name(name).read_text())
    command = [sys.executable, "-c", WITHOUT_FINDER, str(tmp_path)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert f"imported from its source folder, {tmp_path / 'iir_fast'}" in result.stderr
    assert "pip install -e ." in result.stderr
