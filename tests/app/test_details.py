"""Images and classes as CSV: every digit, and what the data does not allow."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iir_fast.app.cli import main
from iir_fast.app.details import IMAGE_COLUMNS, JudgedImage, read_images, write_details
from iir_fast.evaluation import Verdict

HEADER = ",".join(IMAGE_COLUMNS)

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


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_details(tmp_path, {"cam": CAM, "both": UNCLASSIFIED}, ("ant", "bee", "cat"))
    assert read_images(tmp_path) == read_images(tmp_path / "images.csv")
    assert read_images(tmp_path) == {
        "cam": [
            JudgedImage("a/1, b.jpg", "ant", True, True),
            JudgedImage("'=2.jpg", "ant", False, True),
            JudgedImage("a/3.jpg", "ant", True, None),
            JudgedImage("b/1.jpg", "bee", True, False),
        ],
        "both": [JudgedImage("b/1.jpg", "bee", None, True)],
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "its columns are not map,image,class"),
        ("map,image\n", "its columns are not"),
        (f"{HEADER}\n", "holds no image"),
        (f"{HEADER}\ncam,a,ant,ant,0.5\n", "line 2 does not have 7 fields"),
        (f"{HEADER}\ncam,a,ant,ant,0.5,0.1,none,more\n", "line 2 does not have 7 fields"),
        (f"{HEADER}\ncam,a,ant,ant,half,0.1,none\n", "line 2: iou is 'half', and a number is accepted"),
        (f"{HEADER}\n" + "cam,a,ant,ant,0.5,0.1,none\n" * 2, "line 3: 'a' is there twice"),
        ("\xff", "can't decode|its columns"),
    ],
)
def test_another_file_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "images.csv").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=rf"images\.csv.*({sentence})"):
        read_images(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"images\.csv does not exist"):
        read_images(tmp_path)


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    main(["confidence", *map(str, arguments), "--json"])
    return dict(json.loads(capsys.readouterr().out))


def test_confidence_of_one_evaluation_and_of_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, verdicts in {"one": CAM, "two": CAM[::-1], "none": UNCLASSIFIED}.items():
        (tmp_path / name).mkdir()
        write_details(tmp_path / name, {"cam": verdicts}, ("ant", "bee", "cat"))
    alone = printed(capsys, tmp_path / "one")["cam"]
    assert {name: each["value"] for name, each in alone.items()} == {
        "GT-known Loc": 200 / 3,
        "Top-1 Loc": 100 / 3,
        "Top-1 Cls": 75.0,
    }
    assert list(printed(capsys, tmp_path / "none")["cam"]) == ["GT-known Loc"]
    # The same images in another order.
    for each in printed(capsys, tmp_path / "one", tmp_path / "two")["cam"].values():
        assert (each["only_first"], each["only_second"], each["p_value"]) == (0, 0, 1.0)
    better = (*CAM[:3], replace(CAM[3], iou=0.9, error="none"))
    write_details(tmp_path / "two", {"other": better}, ("ant", "bee", "cat"))
    found = printed(capsys, tmp_path / "one", tmp_path / "two")["cam"]["GT-known Loc"]
    assert (found["only_first"], found["only_second"], found["second"]["value"]) == (0, 1, 100.0)
    main(["confidence", str(tmp_path / "one"), str(tmp_path / "two")])
    assert "+33.3 [+0.0, +100.0]" in capsys.readouterr().out


def test_different_images_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, verdicts in {"one": CAM, "two": CAM[:3]}.items():
        (tmp_path / name).mkdir()
        write_details(tmp_path / name, {"cam": verdicts}, ("ant", "bee", "cat"))
    with pytest.raises(SystemExit) as ended:
        main(["confidence", str(tmp_path / "one"), str(tmp_path / "two")])
    assert ended.value.code == 2
    assert "'b/1.jpg' is not in both with one class and box" in capsys.readouterr().err


def test_a_seed_that_none_can_have_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["confidence", str(tmp_path), "--seed", "-1"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "iir-fast: seed is -1; accepted is a whole number of 0 or more.\n"
