"""The report in a real browser, from file://, without a network."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iir_fast.evaluation import largest_box, resize_scoremap, thresholds
from iir_fast.localization import scale_box
from iir_fast.report import write_report
from iir_fast.report.images import ReportImage
from iir_fast.report.page import write_page
from iir_fast.training import RunFolder

MAPS = ("evidence", "cam")
TAUS = thresholds(0.01)


def names(page: Any) -> list[str]:
    """Of the images in the gallery, in their order; all of them are in sight."""
    found = page.locator(".tile button").evaluate_all("tiles => tiles.map((tile) => tile.title)")
    assert page.locator("#count").inner_text() == f"{len(found)} of 40 images."
    return found


def facts(page: Any) -> dict[str, str]:
    values = page.locator("dt + dd").all_inner_texts()
    return dict(zip(page.locator("dt").all_inner_texts(), values, strict=True))


def open_panel(page: Any, name: str) -> None:
    page.locator("#panels label", has_text=name).click()


def figures(page: Any) -> dict[str, list[str]]:
    """Of the open table of metrics, by name: without what is said of each."""
    return {
        row.locator("th").inner_text().split("\n")[0]: row.locator("td").all_inner_texts()
        for row in page.locator("#metrics tbody tr").all()
    }


def move(page: Any, slider: str, position: int) -> None:
    page.locator(slider).evaluate(
        """(slider, position) => {
          slider.value = position;
          slider.dispatchEvent(new Event("input"));
          slider.dispatchEvent(new Event("change"));
        }""",
        position,
    )


def iou(images: list[ReportImage], tau: int, map: int = 0) -> np.ndarray:
    return np.array([image.iou[map, tau] for image in images])


def test_figures_are_those_of_the_evaluation(opened, report):
    metrics = RunFolder(report).read_metrics()["test"]
    assert opened.title() == "run <1>: iir_fast report"
    assert opened.locator("h1").inner_text() == "run <1>"
    assert opened.locator("#metrics").is_hidden()
    open_panel(opened, "figures and curves")
    shown = figures(opened)
    for column, map in enumerate(MAPS):
        first = metrics[map]["curves_v2"][0]
        values = {name: cells[column].split() for name, cells in shown.items()}
        assert values["GT-known Loc, no box"] == [f"{metrics[map]['no_box_gt_known_loc']:.1f}"]
        assert values["MaxBoxAccV2"] == [f"{metrics[map]['max_box_acc_v2']:.1f}"]
        assert values["IoU 0.3"] == [f"{first['best']:.1f}", "τ", f"{first['threshold']:.2f}"]
        assert values["GT-known Loc"][0] == f"{metrics[map]['gt_known_loc']:.1f}"
        assert values["Top-1 Cls"] == [f"{metrics[map]['top1_accuracy']:.1f}"]
    # The data have no masks, and fewer than five classes.
    assert not {"PxAP", "pIoU", "mIoU", "Top-5 Loc", "Top-5 Cls"} & set(shown)
    assert "chosen on: test, the split it is reported on" in opened.locator("#origin").inner_text()
    evidence = metrics["evidence"]
    assert opened.locator("#live").inner_text() == (
        f"GT-known Loc {evidence['gt_known_loc']:.1f} %, Top-1 Loc {evidence['top1_loc']:.1f} %"
    )
    assert opened.locator("#notice").is_hidden()


def test_boxes_at_any_threshold_are_the_evaluators(opened, images):
    opened.locator(".tile button").first.click()
    for image in images[:12]:
        assert opened.locator("#detail-title").inner_text() == image.id
        scoremap = resize_scoremap(torch.from_numpy(image.maps[0]))
        for tau in (5, 50, 95):
            move(opened, "#facts input.tau", tau)
            box = ", ".join(map(str, scale_box(largest_box(scoremap, TAUS[tau]), image.size)))
            opened.locator("dd").nth(4).get_by_text(box, exact=True).wait_for()
            assert facts(opened)["IoU"] in {f"{image.iou[0, tau] + low:.2f}" for low in (0, -0.005)}
        boxes = facts(opened)["True box"].split("; ")
        np.testing.assert_allclose(
            [[float(edge) for edge in box.split(", ")] for box in boxes], image.true_boxes, atol=0.051
        )
        assert facts(opened)["Rank of the class"] == f"{image.rank + 1} of 4"
        opened.locator("#detail").press("ArrowRight")
    opened.locator("#detail").press("ArrowLeft")
    assert opened.locator("#detail-title").inner_text() == images[11].id


def test_the_slider_redraws_mask_and_map_and_nothing_else(opened):
    def pictures() -> list[str]:
        return opened.locator(".tile").first.locator("canvas").evaluate_all("all => all.map((one) => one.toDataURL())")

    opened.locator(".tile").first.locator("figcaption", has_text="Mask").wait_for()
    before = pictures()
    assert len(set(before)) == 5
    slider = opened.locator("#toolbar input.tau")
    shown = opened.locator("#toolbar .tau-value").inner_text()
    slider.press("End")
    assert opened.locator("#toolbar .tau-value").inner_text() == "0.99" != shown
    assert slider.get_attribute("aria-valuetext") == "0.99"
    opened.wait_for_function(
        "before => document.querySelectorAll('.tile canvas')[4].toDataURL() !== before", arg=before[4]
    )
    after = pictures()
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, True, True, False, False]
    opened.locator("#reset").click()
    assert opened.locator("#toolbar .tau-value").inner_text() == shown


def test_filters_wait_while_an_image_is_open(opened):
    move(opened, "#toolbar input.tau", 40)
    opened.locator("#outcomes label", has_text="both wrong").click()
    before = opened.locator("#count").inner_text()
    opened.locator(".tile button").first.click()
    move(opened, "#facts input.tau", 10)
    assert opened.locator("#count").inner_text() == before
    opened.locator("#detail").press("Escape")
    opened.locator("#count", has_not_text=before).wait_for()


def test_outcomes_follow_the_threshold_and_filter(opened, images):
    right_class = np.array([image.predicted == image.label for image in images])
    opened.select_option("#view", "mask")
    for tau in (10, 40):
        move(opened, "#toolbar input.tau", tau)
        right_box = iou(images, tau) >= 0.5
        groups = {
            "right": right_class & right_box,
            "wrong class": ~right_class & right_box,
            "wrong box": right_class & ~right_box,
            "both wrong": ~right_class & ~right_box,
        }
        for name, members in groups.items():
            choice = opened.locator("#outcomes label", has_text=name)
            assert choice.inner_text() == f"{name} {members.sum()}"
            choice.click()
            assert opened.locator("#count").inner_text() == f"{members.sum()} of 40 images."
        assert names(opened) == [images[i].id for i in np.flatnonzero(groups["both wrong"])]
        assert opened.locator("#live").inner_text().startswith(f"GT-known Loc {right_box.mean() * 100:.1f} %")
    assert len({group.sum() for group in groups.values()}) > 1


def test_class_iou_and_name_filter(opened, images):
    opened.select_option("#view", "mask")
    move(opened, "#toolbar input.tau", 20)
    opened.select_option("#label", "2")
    assert names(opened) == [image.id for image in images if image.label == 2]
    opened.fill("#low", "0.3")
    opened.fill("#high", "0.6")
    found = iou(images, 20)
    assert names(opened) == [
        image.id for image, fit in zip(images, found, strict=True) if image.label == 2 and 0.3 <= fit < 0.605
    ]
    opened.fill("#high", "")
    opened.fill("#low", "")
    opened.select_option("#label", "")
    opened.fill("#search", "/1")
    assert names(opened) == [image.id for image in images if "/1" in image.id]
    opened.fill("#search", "nothing is called so")
    assert names(opened) == []


def test_sorting(opened, images):
    opened.select_option("#view", "mask")
    move(opened, "#toolbar input.tau", 20)
    steps = np.floor(iou(images, 20) * 200)
    orders = {
        "best": sorted(range(40), key=lambda i: -steps[i]),
        "worst": sorted(range(40), key=lambda i: steps[i]),
        "confident": sorted(range(40), key=lambda i: -round(images[i].probability, 4)),
        "class": sorted(range(40), key=lambda i: images[i].label),
    }
    for name, order in orders.items():
        opened.select_option("#sort", name)
        assert names(opened) == [images[i].id for i in order]


def test_another_map_has_its_own_figures_and_boxes(opened, images, report):
    opened.locator("#maps label", has_text="cam").click()
    fixed = RunFolder(report).read_metrics()["test"]["cam"]["fixed_threshold"]["value"]
    opened.locator("#toolbar .tau-value", has_text=f"{fixed:.2f}").wait_for()
    open_panel(opened, "figures and curves")
    assert opened.locator("#metrics thead .current").inner_text() == "cam"
    opened.locator(".tile button").first.click()
    box = scale_box(largest_box(resize_scoremap(torch.from_numpy(images[0].maps[1])), fixed), images[0].size)
    opened.get_by_text(", ".join(map(str, box)), exact=True).first.wait_for()
    assert opened.locator("#detail figcaption").nth(3).inner_text().startswith("Map: cam\n")


def test_curves_tell_threshold_and_value_under_the_pointer(opened, report):
    metrics = RunFolder(report).read_metrics()["test"]["evidence"]
    curve = metrics["curves_v2"][1]
    open_panel(opened, "figures and curves")
    # Not the drawing itself, which is made anew whenever its width changes.
    chart = opened.locator("#chart")
    chart.scroll_into_view_if_needed()
    width = chart.locator("svg").bounding_box()["width"]
    chart.hover(position={"x": 40 + 0.6 * (width - 52), "y": 60})
    assert opened.locator("#readout thead th").nth(1).inner_text() == "τ 0.60"
    row = opened.locator("#readout tbody tr").nth(1)
    assert row.locator("th").inner_text() == "IoU 0.5"
    assert row.locator("td").first.inner_text() == f"{curve['accuracy'][60]:.1f}"
    opened.locator("#origin").hover()
    assert opened.locator("#readout thead th").nth(1).inner_text() == f"τ {metrics['fixed_threshold']['value']:.2f}"
    assert chart.locator("polyline").count() == 4


def test_names_of_classes_and_files_are_text(opened, images):
    opened.locator(".tile").first.locator("figcaption", has_text="Mask").wait_for()
    assert opened.locator(".tile .title").first.inner_text().startswith("</script><script>")
    opened.locator(".tile button").first.click()
    opened.locator("dd").first.wait_for()
    assert opened.locator("#detail-title").inner_text() == images[0].id
    assert facts(opened)["Class"].startswith("</script><script>")
    assert opened.evaluate("window.hit") is None
    assert opened.locator("b, img").count() == 0


def test_figures_that_do_not_belong_to_the_maps_are_noticed(page, run_folder, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "run")
    write_report(run, maps=("cam",))
    content = RunFolder(run).read_metrics()
    content["test"]["cam"]["gt_known_loc"] += 10
    RunFolder(run).write_metrics(content)
    page.goto(write_report(run, maps=("cam",)).as_uri())
    page.locator("#notice", has_text="Evaluate the run again").wait_for()


def test_data_without_boxes_are_shown_without_them(page, run_folder, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "run")
    data = Path(re.search(r"data: (.*)", RunFolder(run).config.read_text())[1])
    plain = shutil.copytree(data, tmp_path / "plain")
    lines = (plain / "test.csv").read_text().splitlines()
    (plain / "test.csv").write_text("\n".join(dict.fromkeys(line.rsplit(",", 4)[0] for line in lines)) + "\n")
    page.goto(write_report(run, maps=("cam",), data=str(plain), out=tmp_path / "plain.html").as_uri())
    page.locator("#count", has_text="40 of 40 images").wait_for()
    open_panel(page, "figures and curves")
    assert list(figures(page)) == ["Top-1 Cls"]
    assert page.locator("#curves").is_hidden()
    assert page.locator("#toolbar .tau-value").inner_text() == "0.30"
    assert page.locator("#outcomes label").count() == 3
    page.locator("#gallery").scroll_into_view_if_needed()
    page.locator(".tile button").first.click()
    page.locator("dd").nth(4).wait_for()
    assert "IoU" not in facts(page)


MANY = 3000


def many_images(thumbnail: bytes) -> Any:
    for i in range(MANY):
        yield ReportImage(
            id=f"{i:05d}",
            label=i % 3,
            predicted=0,
            probability=0.5,
            rank=i % 3,
            size=(96, 64),
            true_boxes=np.array([[10.0, 20, 90, 60]]),
            iou=np.array([[i / MANY, 0.2]]),
            cams=np.zeros((2, 4, 4), np.float32),
            maps=np.random.default_rng(i).random((1, 4, 4), np.float32),
            thumbnail=thumbnail,
        )


def many_overview() -> dict[str, Any]:
    curve = {"delta": 0.5, "best": 50.0, "threshold": 0.0, "chosen_on": "val", "accuracy": [50.0, 0.0]}
    metrics = {
        "split": "test",
        "images": MANY,
        "step": 0.5,
        "max_box_acc": 50.0,
        "max_box_acc_v2": 50.0,
        "pxap": None,
        "gt_known_loc": 50.0,
        "top1_loc": 20.0,
        "top5_loc": None,
        "fixed_threshold": {"value": 0.0, "chosen_on": "val"},
        "curve_v1": curve,
        "curves_v2": [curve],
    }
    return {
        "run": "many",
        "split": "test",
        "images": MANY,
        "classes": ["a", "b", "c"],
        "taus": [0.0, 0.5],
        "start": {"cam": 0},
        "metrics": {"cam": metrics},
        "configuration": "",
        "version": "0",
        "colours": {"true": [40, 220, 90], "predicted": [255, 60, 60]},
    }


def test_of_many_images_only_those_in_sight_are_loaded(page, images, tmp_path):
    file = tmp_path / "my report #1.html"
    write_page(file, many_overview(), ("cam",), many_images(images[0].thumbnail), MANY)
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url.rsplit("/", 1)[1]))
    page.goto(file.as_uri())
    page.locator("#count", has_text="3,000 of 3,000 images").wait_for()
    page.locator("#gallery").evaluate("element => element.scrollIntoView()")
    page.locator(".tile").first.locator("figcaption", has_text="Mask").wait_for()
    assert {name for name in loaded if name[0].isdigit()} == {"0000.js"}
    page.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
    middle = page.locator(".tile[aria-posinset='1501']")
    middle.locator("figcaption", has_text="Mask").wait_for()
    assert page.locator(".tile").count() < 40
    assert len([name for name in loaded if name[0].isdigit()]) < 6
    assert middle.locator(".title").inner_text() == "a"
    with page.expect_request("**/0093.js"):  # until then the first tile is that of the order before
        page.select_option("#sort", "best")
        page.locator("#gallery").evaluate("element => element.scrollIntoView()")
    page.locator(".tile").first.locator("figcaption", has_text="Mask").wait_for()
    assert "0093.js" in loaded
    page.locator(".tile button").first.click()
    # IoUs are known in steps of 0.005: the last fifteen images share one.
    assert page.locator("#detail-title").inner_text() == "02985"


def test_a_report_without_its_folder_says_so(browser, tmp_path):
    write_page(tmp_path / "report.html", many_overview(), ("cam",), many_images(b""), MANY)
    shutil.rmtree(tmp_path / "report_files")
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    page.locator("#notice", has_text="report_files/iou-cam.js cannot be read").wait_for()
    page.close()
