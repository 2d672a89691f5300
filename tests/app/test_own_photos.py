"""One's own photographs, as they come: from class folders to boxes, by the commands alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import ExifTags, Image, ImageDraw

Cli = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ["--image-size", "32", "--hidden", "8", "--images-per-class", "4", "--epochs", "2"]
ORIENTED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def photo(kind: str, number: int) -> Image.Image:
    """24 x 36 pixels: an orange disc or a blue bar, somewhere."""
    image = Image.new("RGB", (24, 36), (90 + number, 110, 100))
    draw, x, y = ImageDraw.Draw(image), 1 + number, 2 + 2 * number
    if kind == "ant":
        draw.ellipse((x, y, x + 9, y + 9), fill=(230, 120, 20))
    else:
        draw.rectangle((x, y, x + 5, y + 13), fill=(30, 60, 220))
    return image


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with photos/ant and photos/bee, ten each, one of them turned, and a note."""
    home = tmp_path_factory.mktemp("home")
    for kind in ("ant", "bee"):
        (home / "photos" / kind).mkdir(parents=True)
        for number in range(10):
            photo(kind, number).save(home / "photos" / kind / f"IMG_{number:04}.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    photo("bee", 3).transpose(ORIENTED[6]).save(home / "photos/bee/IMG_0003.png", exif=exif)
    (home / "photos/ant/notes.txt").write_text("mine")
    return home


@pytest.fixture(scope="module")
def trained(home: Path, cli: Cli) -> subprocess.CompletedProcess[str]:
    return cli("train", f"{home}/run", "--data=~/photos", *SMALL, HOME=str(home))


@pytest.mark.slow
def test_class_folders_are_found_held_out_trained_on_and_evaluated(trained, home):
    photos, said = home / "photos", trained.stderr
    assert f"{photos} has no splits: 20% of each class, 4 of 20 images, are held out as test (seed 0)." in said
    assert f"{photos}: left out 1 file without the suffix of an image: ant/notes.txt." in said
    assert "classes_per_batch is 2, not 8: there are no more classes." in said
    assert "of 16 images are turned upright" in said or "of 4 images are turned upright" in said
    assert "test has neither boxes nor masks: nothing is localized there, the top-1 accuracy is" in said
    metrics = json.loads((home / "run/metrics.json").read_text())["test"]["cam"]
    assert (metrics["images"], metrics["max_box_acc"]) == (4, None)
    config = yaml.safe_load((home / "run/config.yaml").read_text())
    assert config["data"] == str(photos)
    assert config["optimization"]["classes_per_batch"] == 8


@pytest.mark.slow
def test_check_says_the_same(cli, home):
    result = cli("data", "check", home / "photos")
    assert "4 of 20 images, are held out as test (seed 0)" in result.stdout
    assert "1 of 16 images are turned upright" in result.stdout or "1 of 4 images" in result.stdout
    assert "no faults" in result.stdout


@pytest.mark.slow
def test_a_run_is_evaluated_and_reported_wherever_one_stands(trained, cli, home, tmp_path, monkeypatch):
    monkeypatch.chdir(home)
    cli("train", "near", "--data", "photos", *SMALL)
    cli("train", "near", "--data", home / "photos", *SMALL, "--resume", "auto")
    monkeypatch.chdir(tmp_path)
    here = json.loads(cli("evaluate", home / "near", "--json").stdout)
    assert (
        here["cam"]["top1_accuracy"]
        == json.loads((home / "run/metrics.json").read_text())["test"]["cam"]["top1_accuracy"]
    )
    page = cli("report", home / "near", "--out", tmp_path / "page.html").stdout.strip()
    assert "IMG_" in Path(page).read_text()


@pytest.mark.slow
def test_localize_reads_what_it_can_names_the_rest_and_turns_photographs(trained, cli, home, tmp_path):
    upright = photo("bee", 4)
    (tmp_path / "mixed").mkdir()
    for name, form in (
        ("b.jfif", "JPEG"),
        ("c.gif", "GIF"),
        ("f.jpe", "JPEG"),
        ("g.jp2", "JPEG2000"),
        ("noext", "PNG"),
    ):
        upright.save(tmp_path / "mixed" / name, form)
    for orientation, method in ORIENTED.items():
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        upright.transpose(method).save(tmp_path / f"mixed/turned{orientation}.png", exif=exif)
    upright.save(tmp_path / "mixed/plain.png")
    overlays = ["--overlays", tmp_path / "overlays"]
    result = cli("localize", tmp_path / "mixed", "--model", home / "run", "--threshold", "0.6", *overlays)
    found = {Path(each["path"]).name: each for each in json.loads(result.stdout)}
    assert list(found) == ["b.jfif", "c.gif", "f.jpe", "g.jp2", "plain.png", *(f"turned{o}.png" for o in ORIENTED)]
    assert "mixed: left out 1 file without the suffix of an image: noext." in result.stderr
    plain = found["plain.png"]
    for orientation in ORIENTED:
        turned = found[f"turned{orientation}.png"]
        assert {**turned, "path": plain["path"]} == plain
    assert all(Image.open(file).size == upright.size for file in (tmp_path / "overlays").iterdir())


@pytest.mark.slow
def test_a_csv_tells_boxes_and_images_without_one(cli, home, tmp_path):
    rows = [f"{kind}/IMG_{i:04}.png;{kind}" for kind in ("ant", "bee") for i in range(6)]
    (home / "photos2").mkdir()
    (home / "photos2/ant").symlink_to(home / "photos/ant")
    (home / "photos2/bee").symlink_to(home / "photos/bee")
    (home / "photos2/train.csv").write_text("\n".join(["Path;Label", *rows]))
    tested = ["ant/IMG_0007.png,ant,8,16,18,26", "bee/IMG_0007.png,bee,8,16,14,30", "bee/IMG_0008.png,bee,,,,", ",,,,,"]
    (home / "photos2/test.csv").write_text("\n".join(["path,label,x0,y0,x1,y1", *tested]))
    result = cli("train", tmp_path / "run", "--data", home / "photos2", *SMALL)
    assert "test: 1 of 3 images have no box; they count for the classification alone." in result.stderr
    assert "test, 3 images, 2 with boxes: % (threshold)" in result.stdout
    (home / "photos2/test.csv").write_text("\n".join(["path,label,xmin,ymin,xmax,ymax", *tested]))
    wrong = cli("train", tmp_path / "other", "--data", home / "photos2", *SMALL, code=2).stderr
    assert "test.csv has columns that look like boxes, xmin,ymin,xmax,ymax; boxes are read from the columns" in wrong
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_what_holds_no_labels_is_refused_in_one_line(cli, home):
    for data, words in (
        (home / "photos/ant", "which holds no images that have labels; train.csv, another single CSV, or one folder"),
        (home / "nowhere", "which is no folder; accepted are procedural, a folder of one's own images, or one of"),
    ):
        for command in (["train", home / "none", "--data", data], ["data", "check", data]):
            result = cli(*command, code=2)
            assert f"iir-fast: data names {data}, {words}" in result.stderr
            assert len(result.stderr.splitlines()) == 1
