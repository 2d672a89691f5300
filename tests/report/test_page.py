"""The files of a report: self-contained, and small however many images there are."""

from __future__ import annotations

import base64
import re
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest

from iir_fast.report.images import ReportImage
from iir_fast.report.page import NO_BOX, SCRIPTS, write_page

MANY = 3000
THUMBNAIL = bytes(10_000)


def images(count: int, classes: int = 3) -> Iterator[ReportImage]:
    """Images whose IoU falls with the threshold, 0.5 at the first for every second one."""
    for i in range(count):
        yield ReportImage(
            id=f"test/{i:05d}.jpg",
            label=i % classes,
            predicted=0,
            probability=0.5,
            rank=i % classes,
            size=(300, 200),
            true_boxes=np.array([[10.0, 20, 100, 120]]),
            iou=np.array([[0.5 if i % 2 else 0.4999, 0.2]]),
            cams=np.zeros((2, 4, 4), np.float32),
            maps=np.random.default_rng(i).random((1, 4, 4), np.float32),
            thumbnail=THUMBNAIL,
        )


def test_few_images_are_all_in_one_file(tmp_path):
    write_page(tmp_path / "new" / "report.html", {}, ("cam",), images(500), 500)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["report.html"]
    page = (tmp_path / "new" / "report.html").read_text()
    assert page.count("<script>iirPart(") == 500 // 32 + 1 + 2
    # All that may lead out of the page: addresses in it, or attributes that load something.
    assert re.findall(r"https?://[^\"' ]+", page) == ["http://www.w3.org/2000/svg"]
    assert not re.findall(r"<(?:script|link|img|iframe|object)[^>]*(?:src|href)", page)
    assert "@import" not in page
    assert "url(" not in page


def test_an_image_without_a_box_keeps_its_place_among_the_ious(tmp_path):
    kept = [replace(image, iou=None if i in (0, 3) else image.iou) for i, image in enumerate(images(5))]
    write_page(tmp_path / "report.html", {}, ("cam",), kept, 5)
    page = (tmp_path / "report.html").read_text()
    (table,) = re.findall(r'iirPart\("iou-cam","(.*)"\)', page)
    assert list(base64.b64decode(table)) == [NO_BOX, 100, 99, NO_BOX, 99, NO_BOX, 40, 40, NO_BOX, 40]
    assert f'"noBox":{NO_BOX}' in page
    write_page(tmp_path / "report.html", {}, ("cam",), [replace(each, iou=None) for each in kept], 5)
    assert 'iirPart("iou-cam",null)' in (tmp_path / "report.html").read_text()


def test_what_classes_and_files_are_called_is_never_markup(tmp_path):
    write_page(tmp_path / "report.html", {"classes": ["</script><img src=x>", "<!--"]}, ("cam",), images(1), 1)
    page = (tmp_path / "report.html").read_text()
    assert "</script><img" not in page
    assert r"\u003c/script>\u003cimg src=x>" in page
    assert r'"\u003c!--"' in page


def test_many_images_go_to_parts_and_are_never_held_together(tmp_path):
    tracemalloc.start()
    write_page(tmp_path / "my report.html", {}, ("cam",), images(MANY), MANY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    parts = sorted(file.name for file in (tmp_path / "my report_files").iterdir())
    assert parts == [*(f"{shard:04d}.js" for shard in range(94)), "iou-cam.js"]
    assert (tmp_path / "my report.html").stat().st_size < 250_000
    assert max(file.stat().st_size for file in (tmp_path / "my report_files").iterdir()) < 500_000
    # Two shards' worth, with the index; all images are 30 MB.
    assert peak < 6_000_000


def test_a_report_is_replaced_and_foreign_files_are_left(tmp_path):
    folder = tmp_path / "report_files"
    write_page(tmp_path / "report.html", {}, ("cam",), images(600), 600)
    (folder / "notes.txt").write_text("mine")
    write_page(tmp_path / "report.html", {}, ("cam",), images(501), 501)
    assert sorted(file.name for file in folder.iterdir())[-3:] == ["0015.js", "iou-cam.js", "notes.txt"]
    assert len(list(folder.iterdir())) == 18


@pytest.mark.parametrize("count", [40, 600])
def test_an_interrupted_report_leaves_the_one_before(count, tmp_path):
    def broken() -> Iterator[ReportImage]:
        yield from images(39)
        raise OSError("image 40 is gone")

    write_page(tmp_path / "report.html", {}, ("cam",), images(600), 600)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(OSError, match="image 40"):
        write_page(tmp_path / "report.html", {}, ("cam",), broken(), count)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["report.html", "report_files/0001.js", "report_files/iou-cam.js"])
def test_what_is_no_report_is_left_alone(name, tmp_path):
    (tmp_path / "report_files").mkdir()
    (tmp_path / name).write_text("<title>My thesis</title>")
    with pytest.raises(FileExistsError, match=f"{name} exists and is no report; it is left alone"):
        write_page(tmp_path / "report.html", {}, ("cam",), images(600), 600)
    assert (tmp_path / name).read_text() == "<title>My thesis</title>"
    assert sum(file.is_file() for file in tmp_path.rglob("*")) == 1
    (tmp_path / name).write_text("")  # what a full disk left
    write_page(tmp_path / "report.html", {}, ("cam",), images(600), 600)


def test_every_script_is_in_the_page():
    web = files("iir_fast.report") / "web"
    scripts = {f"{name}.js" for name in SCRIPTS}
    assert {file.name for file in web.iterdir()} == {*scripts, "page.html", "page.css"}
