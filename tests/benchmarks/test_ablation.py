"""Comparisons side by side: one column for each data set, marks for what is beyond the spread, a plot each."""

import json
from pathlib import Path

import pytest

from benchmarks.ablation import main


def written(folder: Path, rows: dict[str, list[float]], data: str = "") -> Path:
    """A comparison's results: MaxBoxAccV2 of each seed, PxAP half of it, under every map."""
    runs = [
        {"row": row, "data": data, "seed": seed, "metrics": dict.fromkeys(("cam", "evidence", "both"), metrics)}
        for row, values in rows.items()
        for seed, value in enumerate(values)
        for metrics in [{"max_box_acc_v2": value, "pxap": value / 2}]
    ]
    runs.append({"row": "IIR", "data": data, "seed": 9, "metrics": None})  # not complete
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"runs": runs}))
    return folder


def test_rows_of_the_same_data_share_a_column_and_a_plot(tmp_path, capsys):
    first = written(tmp_path / "first", {"IIR": [40.0, 42.0], "CAM": [30.0, 31.0]})
    second = written(tmp_path / "second", {"IIR wide": [50.0, 50.2], "IIR near": [41.5, 42.5]})
    other = written(tmp_path / "other", {"IIR": [10.0]}, "hard")
    main([str(tmp_path), f"a={first}", f"a={second}", f"b={other}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "| CAM map | a | b hard |",
        "|---|---:|---:|",
        "| IIR | 41.0 / 20.5 | 10.0 / 5.0 |",
        "| CAM | 30.5▼ / 15.2▼ |  |",
        "| IIR wide | 50.1▲ / 25.1▲ |  |",
        "| IIR near | 42.0 / 21.0 |  |",
    ]
    assert {file.name for file in tmp_path.glob("*.png")} == {"ablation_a.png", "ablation_b_hard.png"}


def test_other_arguments_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="NAME=RUN"):
        main([str(tmp_path), "runs"])
