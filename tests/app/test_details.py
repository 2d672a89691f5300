"""Images and classes as CSV: every digit, and what the data does not allow."""

from __future__ import annotations

import csv
from pathlib import Path

from iir_fast.app.details import write_details
from iir_fast.evaluation import Verdict

CAM = (
    Verdict("a/1, b.jpg", 0, 0, 2 / 3, 0.19, "none"),
    Verdict("=2.jpg", 0, 1, 0.5, 0.19, "class"),
    Verdict("a/3.jpg", 0, 0),
    Verdict("b/1.jpg", 1, 1, 0.1, 0.19, "wrong place"),
)
UNCLASSIFIED = (Verdict("b/1.jpg", 1, None, 0.75, 0.3, "none"),)


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_line_for_every_image_under_every_map(tmp_path: Path) -> None:
    write_details(tmp_path, {"cam": CAM, "both": UNCLASSIFIED}, ("ant", "bee", "cat"))
    rows = read(tmp_path / "images.csv")
    assert [tuple(row.values()) for row in rows] == [
        ("cam", "a/1, b.jpg", "ant", "ant", repr(2 / 3), "0.19", "none"),
        ("cam", "'=2.jpg", "ant", "bee", "0.5", "0.19", "class"),
        ("cam", "a/3.jpg", "ant", "ant", "", "", ""),
        ("cam", "b/1.jpg", "bee", "bee", "0.1", "0.19", "wrong place"),
        ("both", "b/1.jpg", "bee", "", "0.75", "0.3", "none"),
    ]


def test_a_line_for_every_class_under_every_map(tmp_path: Path) -> None:
    write_details(tmp_path, {"cam": CAM, "both": UNCLASSIFIED}, ("ant", "bee", "cat"))
    ant, bee, cat, _, unclassified, _ = read(tmp_path / "classes.csv")
    figures = ("images", "with_boxes", "gt_known_loc", "top1_loc", "top1_accuracy")
    assert [ant[name] for name in ("map", "class", *figures)] == [
        "cam",
        "ant",
        "3",
        "2",
        "100.0",
        "50.0",
        repr(200 / 3),
    ]
    assert tuple(ant[f"error: {kind}"] for kind in ("none", "class", "wrong place")) == ("1", "1", "0")
    assert [bee[name] for name in figures] == ["1", "1", "0.0", "0.0", "100.0"]
    assert [cat[name] for name in figures] == ["0", "0", "", "", ""]
    assert [unclassified[name] for name in figures] == ["1", "1", "100.0", "", ""]
