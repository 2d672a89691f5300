"""The example notebook runs, cell by cell as a kernel would, and what it shows is there to be shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_look.ipynb"
# What a kernel does with a cell: the last line, if it is an expression without a semicolon, is shown.
KERNEL = """
import ast
import json
import sys

kept, shown = {}, []
for source in json.load(open(sys.argv[1]))["cells"]:
    if source["cell_type"] != "code":
        continue
    text = "".join(source["source"])
    *before, last = ast.parse(text).body
    is_shown = isinstance(last, ast.Expr) and not text.endswith(";")
    exec(compile(ast.Module(before if is_shown else [*before, last], []), "cell", "exec"), kept)
    if is_shown:
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), kept)
        html = getattr(value, "_repr_html_", lambda: "")()
        bundle = getattr(value, "_repr_mimebundle_", lambda include, exclude: {})([], [])
        shown.append([repr(value)[:200], html or bundle.get("text/html", "")])
saved = kept["folder"] / "object.png"
print(json.dumps({"shown": shown, "saved": saved.is_file(), "title": kept["found"][0].plot().get_title()}))
"""


def test_the_notebook_holds_no_output():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


@pytest.mark.slow
def test_every_cell_runs_and_shows_what_it_ends_with(start_python: Callable[..., Any], tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "kernel.py").write_text(KERNEL)
    variables = {"MPLBACKEND": "agg", "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    printed = start_python(tmp_path / "kernel.py", NOTEBOOK, **variables).finish().stdout
    found = json.loads(printed.splitlines()[-1])
    (trained, nothing), (_, table), (_, pictures) = found["shown"]
    assert (trained, nothing) == ("TrainResult(small_cnn, 10 classes, 0 images skipped)", "")
    assert "MaxBoxAccV2" in table
    assert pictures.count("<img") == 6
    assert found["saved"]
    assert found["title"] == "0.png"
