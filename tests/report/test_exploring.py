"""What one does with the report besides looking: filter by class, keep a link, save a table, open the file itself."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

from iir_fast.report import write_report

NAMES = "all => all.map((one) => one.title)"


TAU = 20
"""Position of the threshold 0.2."""


@pytest.fixture
def opened_at_20(page: Any, report: Path) -> Any:
    return opened_at(page, report, "tau=0.2")


@pytest.fixture
def opened_after(page: Any, run_folder: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], Any]:
    """Open a report of two images after a change of what it holds."""

    def open_it(change: Callable[[dict[str, Any]], None]) -> Any:
        file = write_report(shutil.copytree(run_folder, tmp_path / "run"), maps=("cam",), limit=2)
        before, held, after = re.split(r'(?<=iirPart\("overview",)(.*)(?=\);\n)', file.read_text(), maxsplit=1)
        overview = json.loads(held)
        change(overview)
        file.write_text(before + json.dumps(overview).replace("<", "\\u003c") + after)
        page.goto(file.as_uri())
        page.locator("#count", has_text="2 of 2").wait_for()
        return page

    return open_it


def class_names(page: Any) -> list[str]:
    return page.locator("#label option").evaluate_all("all => all.slice(1).map((one) => one.text)")


def saved(page: Any) -> list[dict[str, str]]:
    """Rows of the CSV."""
    with page.expect_download() as download:
        page.locator("#csv").click()
    return list(csv.DictReader(io.StringIO(Path(download.value.path()).read_bytes().decode(), newline="")))


def linked(page: Any) -> dict[str, str]:
    return {name: value for name, [value] in parse_qs(urlsplit(page.url).fragment).items()}


def opened_at(page: Any, report: Path, fragment: str) -> Any:
    page.goto("about:blank")
    page.goto(f"{(report / 'report.html').as_uri()}#{fragment}")
    page.locator("#count", has_text="of 40 images").wait_for()
    return page


def test_pictures_are_in_the_first_screen(page, report):
    for width, height in ((1280, 800), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        first = opened_at(page, report, "").locator(".tile canvas").first
        first.wait_for()
        box = first.bounding_box()
        assert box["y"] + box["height"] < height
        assert page.evaluate("document.documentElement.scrollWidth") == width
    # Where there is no room, filters wait to be asked for.
    assert page.locator("#filters").is_hidden()
    page.locator("#more").click()
    assert page.locator("#filters").is_visible()


def test_tiles_have_the_shape_of_their_images(opened, images):
    for view in ("all", "mask"):
        opened.select_option("#view", view)
        tiles = opened.locator(".tile").evaluate_all(
            """all => all.map((tile) => {
              const place = tile.querySelector("figure > div").getBoundingClientRect();
              const { left, right, top } = tile.getBoundingClientRect();
              return [tile.querySelector("button").title, place.width / place.height, left, right, top];
            })"""
        )
        shapes = {image.id: image.size[0] / image.size[1] for image in images}
        assert len(tiles) > 4
        for name, shape, *_ in tiles:
            # One that is higher than wide has room for its title.
            np.testing.assert_allclose(shape, max(shapes[name], 0.75), rtol=0.02)
        gallery = opened.locator("#gallery").bounding_box()
        for (_, _, left, right, top), (_, _, next_left, _, next_top) in pairwise(tiles):
            assert gallery["x"] <= left < right <= gallery["x"] + gallery["width"]
            assert next_left > right if next_top == top else next_left == gallery["x"]


def test_a_tile_tells_what_was_predicted_and_marks_errors(opened, images):
    opened.select_option("#view", "mask")
    tiles, classes = opened.locator(".tile"), class_names(opened)
    for number, image in enumerate(images[:4]):
        tile = tiles.nth(number)
        assert tile.locator(".predicted").inner_text() == (
            f"predicted: {classes[image.predicted]}, {100 * round(image.probability, 4):.0f} %"
        )
        is_wrong = not tile.locator(".verdict").inner_text().startswith("right")
        assert ("wrong" in tile.get_attribute("class").split()) == is_wrong
    colour = "element => getComputedStyle(element.querySelector('.caption')).borderLeftColor"
    wrong = opened.locator(".tile.wrong").first
    assert wrong.evaluate(colour) != "rgba(0, 0, 0, 0)"
    wrong.evaluate("element => element.classList.replace('wrong', 'right')")
    assert opened.locator(".tile.right").first.evaluate(colour) == "rgba(0, 0, 0, 0)"


def test_classes_one_by_one(opened_at_20, images):
    opened = opened_at_20
    opened.locator("#panels label", has_text="classes").click()
    classes = class_names(opened)
    fit = np.array([image.iou[0, TAU] for image in images])
    right = fit >= 0.5
    rows = [row.locator("th, td").all_inner_texts() for row in opened.locator("#classes tbody tr").all()]
    assert {row[0] for row in rows} == set(classes)
    for name, count, top1_cls, known, top1_loc, iou in rows:
        of_class = np.array([classes[image.label] == name for image in images])
        is_classified = np.array([image.predicted == image.label for image in images])
        assert int(count) == of_class.sum()
        assert top1_cls == f"{100 * is_classified[of_class].mean():.1f}"
        assert known == f"{100 * right[of_class].mean():.1f}"
        assert top1_loc == f"{100 * (right & is_classified)[of_class].mean():.1f}"
        assert abs(float(iou) - (np.floor(200 * fit) / 200)[of_class].mean()) < 0.0051
    # The worst first; a click sorts by another column, another one the other way round.
    assert [float(row[3]) for row in rows] == sorted(float(row[3]) for row in rows)
    opened.locator("#classes thead button", has_text="class").click()
    names = opened.locator("#classes tbody th")
    assert names.all_inner_texts() == sorted(classes)
    opened.locator("#classes thead button", has_text="class").click()
    assert names.all_inner_texts() == sorted(classes)[::-1]
    assert opened.locator("#classes thead th[aria-sort]").get_attribute("aria-sort") == "descending"
    opened.locator("#classes tbody button", has_text="dog").click()
    assert (
        opened.locator("#count").inner_text()
        == f"{sum(classes[image.label] == 'dog' for image in images)} of 40 images."
    )


def test_a_count_of_the_confusion_matrix_shows_its_images(opened, images):
    opened.locator("#panels label", has_text="classes").click()
    matrix = np.zeros((4, 4), int)
    for image in images:
        matrix[image.label, image.predicted] += 1
    shown = [row.locator("td").all_inner_texts() for row in opened.locator("#confusions tbody tr").all()]
    assert [[int(count or 0) for count in row] for row in shown] == matrix.tolist()
    confused = opened.locator("#confusions .confused button").first
    label, predicted = next((i, j) for i in range(4) for j in range(4) if i != j and matrix[i, j])
    assert confused.inner_text() == str(matrix[label, predicted])
    confused.click()
    opened.select_option("#view", "mask")
    assert opened.locator(".tile button").evaluate_all(NAMES) == [
        image.id for image in images if (image.label, image.predicted) == (label, predicted)
    ]


def test_a_link_keeps_what_is_looked_at(opened, report):
    opened.locator("#maps label", has_text="cam").click()
    opened.locator("#toolbar input.tau").press("Home")
    opened.select_option("#view", "mask")
    opened.select_option("#sort", "worst")
    opened.select_option("#label", label="a & b")
    opened.fill("#search", "images/")
    opened.fill("#high", "0.9")
    opened.locator("#panels label", has_text="classes").click()
    opened.locator(".tile button").nth(1).click()
    name = opened.locator("#detail-title").inner_text()
    opened.wait_for_url(lambda url: "image=" in url)
    assert linked(opened) == {
        **{"map": "cam", "tau": "0", "panel": "classes", "view": "mask", "label": "a & b", "high": "0.9"},
        **{"search": "images/", "sort": "worst", "image": name},
    }
    count, link = opened.locator("#count").inner_text(), urlsplit(opened.url).fragment
    again = opened_at(opened, report, link)
    again.locator("#detail-title", has_text=name).wait_for()
    assert again.locator("#count").inner_text() == count
    assert again.locator("#toolbar .tau-value").inner_text() == "0.00"
    assert again.locator("input[name=maps]:checked").get_attribute("value") == "cam"
    assert again.locator("#classes").is_visible()
    for control, value in {"#view": "mask", "#sort": "worst", "#label": "1", "#search": "images/"}.items():
        assert again.locator(control).input_value() == value
    # What goes back to how the page opens is not in the address.
    again.locator("#detail").press("Escape")
    again.select_option("#view", "all")
    again.wait_for_url(lambda url: "view" not in url and "image=" not in url)


def test_a_link_of_another_page_breaks_nothing(page, report):
    nonsense = "map=none&tau=x&view=%3Cb%3E&sort=1&label=none&outcome=9&low=-1&high=x&panel=no&image=none"
    assert opened_at(page, report, nonsense).locator("#count").inner_text() == "40 of 40 images."
    page.wait_for_url(lambda url: url.endswith(".html#"))
    page.evaluate("location.hash = 'search=00&view=mask'")
    page.locator("#count", has_text="1 of 40").wait_for()


def test_what_is_filtered_is_saved_as_csv(opened_at_20, images):
    opened_at_20.select_option("#label", "2")
    rows = saved(opened_at_20)
    outcomes = {(True, True): "right", (False, True): "wrong class", (True, False): "wrong box"}
    assert rows == [
        {
            "image": image.id,
            "class": "cat",
            "predicted": class_names(opened_at_20)[image.predicted],
            "probability": str(round(image.probability, 4)),
            "rank": str(image.rank + 1),
            "map": "evidence",
            "threshold": "0.2",
            "iou": f"{np.floor(image.iou[0, TAU] * 200) / 200:g}",
            "outcome": outcomes.get((image.predicted == 2, bool(image.iou[0, TAU] >= 0.5)), "both wrong"),
        }
        for image in images
        if image.label == 2
    ]
    assert len(rows) == 10


def test_a_saved_name_is_no_formula_and_no_other_cell(opened_after):
    def change(overview: dict[str, Any]) -> None:
        overview["index"]["ids"][0] = "=1+1"
        overview["classes"][0] = 'a "b",\nc'

    page = opened_after(change)
    rows = saved(page)
    assert [row["image"] for row in rows] == ["'=1+1", "images/20 <b onclick=hit()> #1?%41.png"]
    assert [row["class"] for row in rows] == ['a "b",\nc'] * 2


def test_confusions_of_many_classes_are_a_list_of_pairs(opened_after):
    def change(overview: dict[str, Any]) -> None:
        overview["classes"] = [f"class {i}" for i in range(30)]
        overview["index"] |= {"labels": [7, 7], "predicted": [8, 7]}

    page = opened_after(change)
    page.locator("#panels label", has_text="classes").click()
    assert page.locator("#confusions tbody tr").all_inner_texts() == ["class 7\tclass 8\t1"]
    page.locator("#confusions tbody button").click()
    assert page.locator("#count").inner_text() == "1 of 2 images."
    # Classes without an image come after those with the worst.
    assert page.locator("#classes tbody tr").first.inner_text().split("\t")[:3] == ["class 7", "2", "50.0"]


def test_pixels_and_classification_are_among_the_figures(opened_after):
    def change(overview: dict[str, Any]) -> None:
        peaks = {"piou": {"best": 33.3, "threshold": 0.4}, "miou": {"best": 44.4, "threshold": 0.45}}
        overview["metrics"]["cam"] |= peaks | {"pxap": 55.5, "top1_accuracy": 66.6, "top5_accuracy": 77.7}

    page = opened_after(change)
    page.locator("#panels label", has_text="figures and curves").click()
    rows = [row.inner_text().split() for row in page.locator("#metrics tbody tr").all()]
    shown = {row[0]: row for row in rows} | {f"{row[0]} {row[1]}": row for row in rows}
    assert shown["pIoU"][-3:] == ["33.3", "\u03c4", "0.40"]
    assert shown["mIoU"][-3:] == ["44.4", "\u03c4", "0.45"]
    assert [shown[name][-1] for name in ("PxAP", "Top-1 Cls", "Top-5 Cls")] == ["55.5", "66.6", "77.7"]


def test_the_file_itself_is_shown_on_demand(opened):
    opened.locator(".tile button").first.click()
    opened.locator("#detail figcaption", has_text="Mask").wait_for()
    button = opened.locator("#original")
    assert button.inner_text() == "Original, 64 \u00d7 64 pixels"
    button.click()
    opened.locator("#detail figcaption", has_text="Original").wait_for()
    assert button.get_attribute("aria-pressed") == "true"
    assert opened.locator("#detail canvas").count() == 1
    assert opened.locator("#detail canvas").bounding_box()["width"] > 500
    opened.locator("#detail").press("ArrowRight")
    opened.locator("#detail figcaption", has_text="Original").wait_for()
    assert button.inner_text() == "Original, 96 \u00d7 64 pixels"
    button.click()
    opened.locator("#detail figcaption", has_text="Mask").wait_for()


def test_a_file_that_is_gone_or_another_is_named(browser, run_folder, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "run")
    data = Path(re.search(r"data: (.*)", (run / "config.yaml").read_text())[1])
    moved = shutil.copytree(data, tmp_path / "moved")
    file = write_report(run, maps=("cam",), data=str(moved), out=tmp_path / "pages" / "report.html", limit=2)
    first = min((moved / "images").iterdir())
    first.unlink()
    page = browser.new_page()
    page.goto(file.as_uri())
    page.locator(".tile button").first.click()
    page.locator("#original").click()
    page.locator("#detail-notice", has_text=f"../moved/images/{first.name} cannot be shown").wait_for()
    assert page.locator("#detail canvas").count() == 5
    Image.new("RGB", (30, 20)).save(first)
    page.locator("#original").click()
    expected = "30 \u00d7 20 pixels here, and the run read it as 64 \u00d7 64"
    page.locator("#detail-notice", has_text=expected).wait_for()
    page.close()
