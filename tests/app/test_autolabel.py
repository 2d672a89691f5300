"""`iir-fast autolabel`: from class folders to a detector's data set and a review list, with nothing but labels."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from iir_fast.app.autolabel import review_row, write_review
from iir_fast.app.cli import main
from iir_fast.app.runs import load
from iir_fast.data import ProceduralDataset
from iir_fast.localization import FoundObject, ImageResult
from iir_fast.localization.doubt import Doubt
from iir_fast.training import TrainConfig, read_yaml

Cli = Callable[..., subprocess.CompletedProcess[str]]
CLASSES = ("ant", "bee")
ROOT = Path(__file__).parents[2]


def write_photos(folder: Path, first: int = 0, count: int = 5) -> None:
    """Class folders of some of the embedded data's images; ten make a round of its classes."""
    dataset = ProceduralDataset("train", 10 * (first + count))
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(first, first + count):
            dataset.image(10 * i + label).save(folder / name / f"{i:02d}.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/ant and photos/bee, five each; split/ with parts of its own, and CSVs that no one could read."""
    home = tmp_path_factory.mktemp("home")
    write_photos(home / "photos")
    for number, split in enumerate(("train", "val", "test")):
        write_photos(home / "split" / split, 2 * number, 2)
        (home / "split" / f"{split}.csv").write_text("path,label,x0,y0,x1,y1\nnowhere.png,cow,9,9,1,1\n")
    small = {"image_size": 32, "hidden": 8, "images_per_class": 4, "epochs": 1}
    cached = {"freeze_backbone": True, "feature_cache": str(home / "cache")}
    (home / "small.yaml").write_text(yaml.safe_dump(small | cached))
    return home


@pytest.fixture(scope="module")
def labelled(home: Path, cli: Cli) -> Path:
    """What the command makes of photos/."""
    result = cli("autolabel", home / "photos", home / "out", "--to", "yolo", "--recipe", home / "small.yaml")
    assert f"10 images in {home / 'out'}; {home / 'out/review.csv'} has the most doubtful first." in result.stderr
    return home / "out"


def review(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "review.csv").read_text().splitlines()))


def box_of(row: dict[str, str]) -> tuple[int, ...]:
    return tuple(int(row[corner]) for corner in ("x0", "y0", "x1", "y1"))


def found_by_class(run: Path, rows: list[dict[str, str]], **options: str) -> dict[tuple[str | None, str], FoundObject]:
    """What `localize` finds of either class in the images of a list."""
    images = load(run).localize([row["path"] for row in rows], top_k=2, **options)
    return {(image.path, each.label): each for image in images for each in image.objects}


def test_every_image_has_a_box_of_the_class_of_its_folder_in_the_layout_of_yolo(labelled, home):
    content = yaml.safe_load((labelled / "data.yaml").read_text())
    assert content["names"] == dict(enumerate(CLASSES))
    rows = {(row["part"], row["index"]): row for row in review(labelled)}
    sources = []
    for part, count in (("train", 8), ("val", 2)):
        images = sorted((labelled / content[part]).iterdir())
        assert len(images) == count
        for image in images:
            sources.append(image.resolve())
            row = rows[part, str(int(image.name.partition("-")[0]))]
            assert Path(row["path"]) == image.resolve()
            [line] = (labelled / part / "labels" / f"{image.stem}.txt").read_text().splitlines()
            label, *shares = line.split()
            assert CLASSES[int(label)] == row["label"] == image.resolve().parent.name
            x0, y0, x1, y1 = box_of(row)
            expected = ((x0 + x1) / 128, (y0 + y1) / 128, (x1 - x0) / 64, (y1 - y0) / 64)
            assert tuple(map(float, shares)) == pytest.approx(expected, abs=1e-6)
    assert sorted(sources) == sorted((home / "photos").glob("*/*.png"))


def test_the_list_has_every_box_by_falling_doubt_and_what_it_is_made_of(labelled):
    rows = review(labelled)
    assert len(rows) == 10
    doubts = [float(row["doubt"]) for row in rows]
    assert doubts == sorted(doubts, reverse=True)
    assert len(set(doubts)) > 5
    for row in rows:
        agreement, stability, probability = (float(row[name]) for name in ("agreement", "stability", "probability"))
        assert 0 < probability < 1
        assert float(row["doubt"]) == pytest.approx(1 - (2 * agreement + 4 * stability + probability) / 7, abs=2e-4)


def test_boxes_are_those_of_grabcut_unless_another_refinement_is_asked_for(labelled):
    rows = review(labelled)
    refined, plain = (found_by_class(labelled / "run", rows, refinement=name) for name in ("grabcut", "none"))
    assert [box_of(row) for row in rows] == [refined[row["path"], row["label"]].box for row in rows]
    assert any(refined[key].box != plain[key].box for key in refined)


def test_a_run_labels_other_photographs_with_their_own_parts_and_reads_no_boxes(labelled, home, cli, tmp_path):
    out = tmp_path / "again"
    options = ["--model", labelled / "run", "--to", "coco", "--refine", "guided"]
    cli("autolabel", home / "split", out, *options)
    assert sorted(file.name for file in out.iterdir()) == ["review.csv", "test.json", "train.json", "val.json"]
    for part in ("train", "val", "test"):
        coco = json.loads((out / f"{part}.json").read_text())
        assert {Path(image["file_name"]).parts[-3:-1] for image in coco["images"]} == {(part, kind) for kind in CLASSES}
        assert [each["category_id"] for each in coco["annotations"]] == [1, 1, 2, 2]
    rows = review(out)
    assert {row["part"] for row in rows} == {"train", "val", "test"}
    refined, plain = (found_by_class(labelled / "run", rows, refinement=name) for name in ("guided", "none"))
    assert [box_of(row) for row in rows] == [refined[row["path"], row["label"]].box for row in rows]
    assert [box_of(row) for row in rows] != [plain[row["path"], row["label"]].box for row in rows]


def test_the_box_is_that_of_the_folders_class_whatever_the_network_would_say(labelled, home, tmp_path):
    (tmp_path / "swapped").mkdir()
    for name, other in zip(CLASSES, reversed(CLASSES), strict=True):
        (tmp_path / "swapped" / name).symlink_to(home / "photos" / other)
    main(["autolabel", str(tmp_path / "swapped"), str(tmp_path / "out"), "--model", str(labelled / "run")])
    rows = review(tmp_path / "out")
    expected = found_by_class(labelled / "run", rows, refinement="grabcut")
    assert len(rows) == 10
    unlike = 0
    for row in rows:
        assert row["label"] == Path(row["path"]).parent.name
        mine, other = (expected[row["path"], name] for name in sorted(CLASSES, key=lambda name: name != row["label"]))
        assert float(row["probability"]) == pytest.approx(mine.probability, abs=1e-4)
        assert box_of(row) == mine.box
        unlike += mine.box != other.box and mine.probability < other.probability
    assert unlike


def test_constant_maps_have_no_box_and_are_counted(labelled, home, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("iir_fast.app.autolabel.resize_scoremap", lambda map: np.zeros((224, 224)))
    main(["autolabel", str(home / "photos"), str(tmp_path / "out"), "--model", str(labelled / "run")])
    assert f"10 boxes have no area, as their maps are constant or their images tiny; first: {home}" in (
        capsys.readouterr().err
    )
    for row in review(tmp_path / "out"):
        assert (row["agreement"], row["stability"], row["x1"]) == ("0.0000", "0.0000", "0")
    assert [file.read_text() for file in (tmp_path / "out").glob("*/labels/*.txt")] == [""] * 10


def test_what_cannot_become_a_data_set_is_refused_before_anything_is_computed_or_written(
    labelled, home, tmp_path, capsys
):
    (tmp_path / "there").mkdir()
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone/train").symlink_to(home / "split/train")
    write_photos(tmp_path / "broken/train")
    write_photos(tmp_path / "broken/val")
    (tmp_path / "broken/val/bee/00.png").write_bytes(b"no image")
    (tmp_path / "strange/wasp").mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (8, 8)).save(tmp_path / f"strange/wasp/{number}.png")
    (tmp_path / "latin.yaml").write_bytes(b"seed: 1 # \xfc")
    out, recipe, model = tmp_path / "out", ["--recipe", home / "small.yaml"], ["--model", labelled / "run"]
    for photos, to, options, words in (
        (home / "photos", tmp_path / "there", recipe, f"output folder {tmp_path / 'there'} exists; name a new one."),
        (home / "photos", out, [*recipe, *model], "model and recipe exclude each other"),
        (home / "photos/ant", out, recipe, "photos/ant, which holds no class folders; accepted is a folder of one"),
        (tmp_path / "alone", out, recipe, "alone, which holds the split train alone; accepted is a folder of one"),
        (tmp_path / "broken", out, recipe, "The image val/bee/00.png cannot be read"),
        (tmp_path / "broken", out, model, "The image val/bee/00.png cannot be read"),
        (tmp_path / "strange", out, model, "strange/wasp is none of the 2 classes"),
        (home / "photos", out, ["--recipe", tmp_path / "latin.yaml"], "latin.yaml is no text in UTF-8"),
        (home / "photos", out, ["--model", home / "photos"], "it is not the folder of a run"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["autolabel", *map(str, (photos, to, *options))])
        said = capsys.readouterr().err
        assert stop.value.code == 2
        assert "iir-fast: " in said
        assert words in said.splitlines()[-1]
        assert "label " not in said
        assert not out.exists()


def test_without_a_recipe_it_trains_as_on_the_photographs_and_as_long(home, tmp_path, monkeypatch, capsys):
    def trained(config: TrainConfig, folder: Path, evaluated: list[str]) -> NoReturn:
        assert (folder, evaluated) == (tmp_path / "out/run", ["test"])
        base = read_yaml((ROOT / "configs/compare/photos.yaml").read_text(), "photos.yaml")["base"]
        photographs, options = TrainConfig.from_options(base).options(), config.options()
        # Its four passes are over 1,200 images, these over 8. The map that is read is the one that the rule finds.
        assert photographs["epochs"] * 1200 == options["epochs"] * 8
        for name in set(base) - {"epochs", "out_index"}:
            assert options[name] == photographs[name]
        raise ValueError("looked at")

    monkeypatch.setattr("iir_fast.app.autolabel.train", trained)
    with pytest.raises(SystemExit):
        main(["autolabel", str(home / "photos"), str(tmp_path / "out")])
    assert "looked at" in capsys.readouterr().err


def test_the_most_doubtful_box_comes_first_and_of_equal_doubt_the_earlier(tmp_path):
    def row(part: str, index: int, agreement: float, stability: float, path: str = "a.png") -> dict[str, object]:
        found = FoundObject("=bee", 1, 0.25, (1, 2, 30, 40), torch.zeros(2, 2))
        image = ImageResult(index, path, (50, 60), (found,))
        return review_row(part, image, Doubt(agreement, stability, 0.25))

    rows = [
        row("train", 0, 1.0, 1.0),
        row("train", 1, 0.75, 0.5),
        row("train", 2, 0.0, 0.0, "caf\udce9.png"),
        row("val", 0, 0.25, 0.75),
        row("val", 1, 0.30001, 0.3),
        row("val", 2, 0.3, 0.3),
    ]
    write_review(tmp_path / "review.csv", rows)
    assert (tmp_path / "review.csv").read_text().splitlines() == [
        "doubt,agreement,stability,probability,part,index,path,label,x0,y0,x1,y1",
        r"0.9643,0.0000,0.0000,0.2500,train,2,caf\udce9.png,'=bee,1,2,30,40",
        "0.7071,0.3000,0.3000,0.2500,val,2,a.png,'=bee,1,2,30,40",
        "0.7071,0.3000,0.3000,0.2500,val,1,a.png,'=bee,1,2,30,40",
        "0.4643,0.7500,0.5000,0.2500,train,1,a.png,'=bee,1,2,30,40",
        "0.4643,0.2500,0.7500,0.2500,val,0,a.png,'=bee,1,2,30,40",
        "0.1071,1.0000,1.0000,0.2500,train,0,a.png,'=bee,1,2,30,40",
    ]
