"""What is printed of metrics: digits, a paper's row, and all of it as CSV."""

from __future__ import annotations

import csv
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest

from iir_fast.app.tables import metrics_csv, metrics_table, paper_table, threshold_text
from iir_fast.evaluation import BoxCurve, FixedThreshold, Metrics, Peak

CURVES = tuple(BoxCurve(delta, (40.0, best), best, 0.5) for delta, best in ((0.3, 90.0), (0.5, 60.04), (0.7, 1 / 3)))
ALL = Metrics(
    *("test", 30, 0.001, 20),
    max_box_acc=60.04,
    max_box_acc_v2=50.1,
    pxap=70.0,
    piou=Peak(45.0, 0.31),
    miou=Peak(55.0, 0.3),
    gt_known_loc=58.0,
    top1_loc=48.0,
    top5_loc=57.0,
    fixed_threshold=FixedThreshold(0.187, "val"),
    top1_accuracy=80.0,
    top5_accuracy=95.0,
    curve_v1=CURVES[1],
    curves_v2=CURVES,
)
CLASSIFIED = Metrics("test", 9, 0.01, top1_accuracy=80.0)


@pytest.mark.parametrize(
    ("threshold", "step", "text"),
    [
        (0.187, 0.001, "0.187"),
        (0.19, 0.001, "0.190"),
        (np.arange(0, 1, 0.001)[571], 0.001, "0.571"),
        (0.5, 0.01, "0.50"),
        (0.0, 0.3, "0.00"),
        (0.187, 0.01, "0.187"),
        (0.1, 0.0005, "0.1000"),
        (2.0, 0.01, "2.00"),
        (1 / 3, 1 / 3, "0.333333"),
    ],
)
def test_a_threshold_has_the_digits_that_its_step_needs(threshold: float, step: float, text: str) -> None:
    assert threshold_text(threshold, step) == text


def test_a_papers_row_has_every_threshold_and_who_chose_it_below() -> None:
    lines = paper_table({"both": ALL}, "resnet50", "iir").splitlines()
    assert lines[0] == "test, 30 images, 20 with boxes, in %:"
    names, _, values, taus, splits = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:7])
    below = dict(zip(names, zip(values, taus, splits, strict=True), strict=True))
    assert below == {
        "backbone": ("resnet50", "", ""),
        "method": ("iir, both map", "threshold", "chosen on"),
        "Top-1 Loc": ("48.0", "0.187", "val"),
        "Top-5 Loc": ("57.0", "0.187", "val"),
        "GT-known Loc": ("58.0", "0.187", "val"),
        "MaxBoxAcc": ("60.0", "0.500", "test"),
        "MaxBoxAccV2": ("50.1", "", ""),
        "IoU 0.3": ("90.0", "0.500", "test"),
        "IoU 0.5": ("60.0", "0.500", "test"),
        "IoU 0.7": ("0.3", "0.500", "test"),
        "PxAP": ("70.0", "", ""),
        "pIoU": ("45.0", "0.310", "test"),
        "Top-1 Cls": ("80.0", "", ""),
        "Top-5 Cls": ("95.0", "", ""),
    }
    assert lines[-1] == "What is chosen on test is chosen on the very images that it is reported on."


def test_what_the_data_does_not_allow_is_a_dash_in_a_papers_row() -> None:
    *_, row, _, _ = lines = paper_table({"maps": CLASSIFIED}).splitlines()
    assert len(lines) == 7  # no threshold was chosen anywhere, and nothing is said of it
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["-", "maps", *["-"] * 10, "80.0", "-"]


def test_the_default_table_says_who_chose_its_thresholds() -> None:
    judged = replace(ALL, errors={"none": 48.0, "part": 52.0})
    table = metrics_table({"both": judged, "cam": replace(judged, piou=Peak(44.0, 0.3))})
    rows = dict(zip(*(list(column.cells) for column in table.columns[:2]), strict=True))
    assert rows["  IoU 0.7"] == "0.3 (0.500)"
    assert rows["pIoU"] == "45.0 (0.310)"
    assert rows["Top-1 Loc"] == "48.0 (0.187)"
    assert rows["Top-5 Cls"] == "95.0"
    assert rows["error: part"] == "52.0 (0.187)"
    assert "Threshold of GT-known and Top-k chosen on: val." in str(table.caption)
    assert "pIoU and mIoU take the best threshold on the evaluated split itself" in str(table.caption)


def test_the_default_table_leaves_out_what_the_data_do_not_allow() -> None:
    table = metrics_table({"both": CLASSIFIED, "cam": CLASSIFIED})
    assert [list(column.cells) for column in table.columns] == [["Top-1 Cls"], ["80.0"], ["80.0"]]
    assert table.caption is None
    assert len(metrics_table({"both": ALL, "cam": CLASSIFIED}).rows) == len(metrics_table({"both": ALL}).rows)


def test_csv_holds_every_digit_of_every_figure() -> None:
    header, *lines = csv.reader(StringIO(metrics_csv({"both": ALL, "cam": CLASSIFIED})))
    assert header == ["figure", "both", "cam"]
    found = {name: values for name, *values in lines}
    assert len(found) == len(lines)
    assert "piou" not in found
    assert found["top1_accuracy"] == ["80.0", "80.0"]
    assert float(found["curves_v2.2.accuracy.1"][0]) == 1 / 3
    assert found["fixed_threshold.value"] == ["0.187", ""]
    assert found["piou.chosen_on"] == ["test, the split it is reported on", ""]
    leaves = sum(len(value) - 1 + len(value["accuracy"]) for value in ALL.to_dict()["curves_v2"])
    assert sum(name.startswith("curves_v2.") for name in found) == leaves


def test_csv_names_no_formula_that_a_spreadsheet_runs() -> None:
    text = metrics_csv({"=cmd()": replace(ALL, data="@folder"), "cam": CLASSIFIED})
    found = {name: values for name, *values in csv.reader(StringIO(text))}
    assert found["figure"] == ["'=cmd()", "cam"]
    assert found["data"][0] == "'@folder"
