"""check_data and `iir-fast data check`: sound copies pass, every planted fault is named."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iir_fast.data import SplitSummary, check_data, open_split

ALBATROSS = "001.Black_footed_Albatross"


def found(source: str, decode: bool = False) -> set[tuple[str, str]]:
    """Kinds and messages of the faults, without the folder in which the data are."""
    root = source.partition(":")[2] or source
    return {(fault.kind, fault.message.replace(f"{root}/", "")) for fault in check_data(source, decode).faults}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with CSVs: two images to train on and two to test on, with masks."""
    for name in ("a.png", "b.png", "c.png", "d.png"):
        Image.new("RGB", (20, 12), "red").save(tmp_path / name)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.new("L", (20, 12), 255).save(tmp_path / "masks" / name)
    (tmp_path / "train.csv").write_text("path,label\na.png,ant\nb.png,fox\n")
    (tmp_path / "test.csv").write_text("path,label,x0,y0,x1,y1\nc.png,ant,0,0,5,5\nd.png,fox,1,1,20,12\n")
    return tmp_path


@pytest.mark.parametrize("name", ["cub", "ilsvrc", "ilsvrc-proxy", "openimages", "pet"])
def test_sound_copies_have_no_faults(name: str, request: pytest.FixtureRequest) -> None:
    assert found(f"{name}:{request.getfixturevalue(name.partition('-')[0])}", decode=True) == set()


def test_a_sound_folder_and_the_embedded_data(folder: Path) -> None:
    report = check_data(str(folder), decode=True)
    assert report.faults == ()
    assert report.splits == (SplitSummary("train", 2, 2, 1, 1, 0, 2), SplitSummary("test", 2, 2, 1, 1, 2, 2))
    assert check_data("procedural").splits[1] == SplitSummary("test", 800, 10, 80, 80, 800, 800)


def test_counts_and_official_counts(ilsvrc: Path, openimages: Path, pet: Path) -> None:
    report = check_data(f"ilsvrc:{ilsvrc}")
    assert report.splits[2] == SplitSummary("test", 11, 11, 1, 1, 23, 0)
    assert "train has 22 images; ILSVRC officially has 1,281,167" in report.warnings
    assert "test has 23 boxes; ILSVRC officially has 80,477" in report.warnings
    proxy = check_data(f"ilsvrc-proxy:{ilsvrc}")
    assert proxy.splits == (SplitSummary("train", 11, 11, 1, 1, 0, 0), *report.splits[1:])
    assert proxy.warnings == report.warnings[1:]
    report = check_data(f"openimages:{openimages}")
    assert report.splits[1:] == (SplitSummary("val", 2, 2, 1, 1, 0, 4), SplitSummary("test", 4, 2, 2, 2, 0, 8))
    assert "val has 4 masks; OpenImages30k officially has 3,854" in report.warnings
    assert "test has 8 masks; OpenImages30k officially has 7,632" in report.warnings
    assert check_data(f"pet:{pet}").splits[0] == SplitSummary("train", 6, 2, 3, 3, 6, 6)


Plant = Callable[[Path, Callable[[Path, int, str | None], None]], None]


def shrink(file: Path) -> None:
    Image.new("RGB", (12, 20)).save(file)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-30])


METADATA = "metadata/CUB/test"
PLANTED: list[tuple[Plant, str, str]] = [
    (
        lambda root, change: change(root / METADATA / "class_labels.txt", 1, "what"),
        "corrupt line",
        f"{METADATA}/class_labels.txt, line 1: path,label in UTF-8 is accepted, got 'what'",
    ),
    (
        lambda root, change: change(root / METADATA / "class_labels.txt", 1, f"{ALBATROSS}/test_0.jpg,7"),
        "label",
        f"{METADATA}/class_labels.txt, line 1: label must be below 2, got 7",
    ),
    (
        lambda root, change: change(root / METADATA / "class_labels.txt", 2, None),
        "missing line",
        f"{METADATA}/class_labels.txt has no line for {ALBATROSS}/test_1.jpg, which image_ids.txt lists",
    ),
    (
        lambda root, change: change(root / METADATA / "image_ids.txt", 1, None),
        "unlisted id",
        f"{METADATA}/localization.txt, line 1: {ALBATROSS}/test_0.jpg is not in image_ids.txt",
    ),
    (
        lambda root, change: change(root / METADATA / "image_ids.txt", 2, f"{ALBATROSS}/test_0.jpg"),
        "duplicate id",
        f"{METADATA}/image_ids.txt, line 2: {ALBATROSS}/test_0.jpg stands in line 1 already",
    ),
    (
        lambda root, change: change(root / METADATA / "image_sizes.txt", 1, None),
        "missing line",
        f"{METADATA}/image_sizes.txt has no line for {ALBATROSS}/test_0.jpg, which image_ids.txt lists",
    ),
    (
        lambda root, change: change(root / METADATA / "localization.txt", 1, None),
        "no annotation",
        f"{METADATA}/localization.txt has no line for {ALBATROSS}/test_0.jpg, which image_ids.txt lists",
    ),
    (
        lambda root, change: change(root / METADATA / "localization.txt", 1, f"{ALBATROSS}/test_0.jpg,5,5,4,6"),
        "corrupt line",
        f"{METADATA}/localization.txt, line 1: 0 <= x0 <= x1 and 0 <= y0 <= y1 must hold, got '5,5,4,6'",
    ),
    (
        lambda root, change: change(root / METADATA / "localization.txt", 1, f"{ALBATROSS}/test_0.jpg,0,0,5,13"),
        "box outside",
        f"{METADATA}/localization.txt, line 1: the box 0,0,5,13 leaves its image, 20 x 12 pixels",
    ),
    (
        lambda root, change: (root / METADATA / "localization.txt").unlink(),
        "missing file",
        f"{METADATA}/localization.txt does not exist or is not a file",
    ),
    (
        lambda root, change: (root / METADATA / "localization.txt").write_text(""),
        "missing file",
        f"{METADATA}/localization.txt is empty",
    ),
    (
        lambda root, change: (root / METADATA / "image_ids.txt").unlink(),
        "missing file",
        f"{METADATA}/image_ids.txt does not exist or is not a file",
    ),
    (
        lambda root, change: (root / "CUB" / ALBATROSS / "test_0.jpg").unlink(),
        "missing image",
        f"The image {ALBATROSS}/test_0.jpg cannot be read: No such file or directory",
    ),
    (
        lambda root, change: shrink(root / "CUB" / ALBATROSS / "test_0.jpg"),
        "image size",
        f"{ALBATROSS}/test_0.jpg is 12 x 20 pixels, image_sizes.txt states 20 x 12",
    ),
]


@pytest.mark.parametrize(("plant", "kind", "message"), PLANTED)
def test_every_planted_fault_of_cub_is_named(cub, change_line, plant: Plant, kind: str, message: str) -> None:
    plant(cub, change_line)
    assert (kind, message) in found(f"cub:{cub}")


def test_truncated_files_are_found_when_decoded(openimages: Path) -> None:
    images = openimages / "OpenImages/test/01226z"
    truncate(images / "0.jpg")
    truncate(images / "0_m1.png")
    (images / "1.jpg").write_bytes(b"no image")
    kinds = {kind for kind, _ in found(f"openimages:{openimages}")}
    assert kinds == {"unreadable image"}
    decoded = found(f"openimages:{openimages}", decode=True)
    assert sorted(kind for kind, _ in decoded) == ["unreadable image", "unreadable image", "unreadable mask"]


def test_masks_missing_or_of_other_proportions(openimages: Path, pet: Path) -> None:
    images = openimages / "OpenImages/test/01226z"
    (images / "0_ignore.png").unlink()
    Image.new("L", (30, 41)).save(images / "0_m1.png")
    Image.new("L", (31, 18)).save(images / "1_m1.png")  # 1.5 times the image, 30 x 18, but for rounding
    assert found(f"openimages:{openimages}") == {
        (
            "missing mask",
            "test/01226z/0.jpg: The image test/01226z/0_ignore.png cannot be read: No such file or directory",
        ),
        (
            "mask size",
            "The mask test/01226z/0_m1.png is 30 x 41 pixels, its image test/01226z/0.jpg 20 x 12; "
            "the same proportions are accepted.",
        ),
    }
    trimaps = pet / "oxford-iiit-pet/annotations/trimaps"
    Image.fromarray(np.full((24, 40), 1, np.uint8)).save(trimaps / "Abyssinian_1.png")
    Image.fromarray(np.full((12, 20), 9, np.uint8)).save(trimaps / "Abyssinian_2.png")
    assert [kind for kind, _ in found(f"pet:{pet}")] == ["mask size"]
    assert {kind for kind, _ in found(f"pet:{pet}", decode=True)} == {"mask size", "unreadable mask"}


def test_labels_in_the_order_of_the_devkit_and_with_gaps(ilsvrc: Path) -> None:
    file = ilsvrc / "metadata/ILSVRC/train/class_labels.txt"
    pairs = [line.split(",") for line in file.read_text().splitlines()]
    file.write_text("".join(f"{path},{11 - int(label)}\n" for path, label in pairs))
    messages = {message for kind, message in found(f"ilsvrc:{ilsvrc}") if kind == "label"}
    assert any("labels must be 0 to K-1 for K classes; up to 11, none is 0" in message for message in messages)
    assert any("labels must follow the sorted names of the folders" in message for message in messages)


# Far beyond the images; a name for each class up to there took gigabytes.
FAR = 3_000_000


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_label_far_beyond_the_images_is_a_fault(cub: Path, change_line, split: str) -> None:
    if split == "test":  # and no training split that names the classes
        shutil.rmtree(cub / "metadata/CUB/train")
    change_line(cub / f"metadata/CUB/{split}/class_labels.txt", 1, f"{ALBATROSS}/{split}_0.jpg,{FAR}")
    images = {"train": 6, "test": 4}[split]
    message = f"class_labels.txt, line 1: label must be below 100000, for {images} images, got {FAR}"
    report = check_data(f"cub:{cub}")
    assert next(fault.message.rpartition("/")[2] for fault in report.faults if fault.kind == "label") == message
    with pytest.raises(ValueError, match=message):
        open_split(f"cub:{cub}", split, np.asarray)


def test_a_breed_far_beyond_the_images_is_a_fault(pet: Path, change_line) -> None:
    change_line(pet / "oxford-iiit-pet/annotations/trainval.txt", 1, f"Abyssinian_1 {FAR} 1 1")
    message = f"trainval.txt, line 1: breed must be 100000 or less, for 6 images, got {FAR}"
    assert message in {fault.message.rpartition("/")[2] for fault in check_data(f"pet:{pet}").faults}
    with pytest.raises(ValueError, match=message):
        open_split(f"pet:{pet}", "train", np.asarray)


def test_a_label_in_a_shard_far_beyond_the_images_is_a_fault(shards: Path, write_shard, sample) -> None:
    (shards / "classes.txt").unlink()
    write_shard(shards / "train/b.tar", sample("far", 999_999))
    report = check_data(f"shards:{shards}")
    assert [fault.message for fault in report.faults] == [
        f"{shards}/train/b.tar/far.png: label must be below 3, got 999999"
    ]
    with pytest.raises(ValueError, match="label must be below 3, got 999999"):
        open_split(f"shards:{shards}", "train", np.asarray)


def test_a_label_of_more_digits_than_python_reads_is_a_fault(cub: Path, change_line) -> None:
    change_line(cub / "metadata/CUB/train/class_labels.txt", 1, f"{ALBATROSS}/train_0.jpg,{'9' * 5000}")
    assert "label must be a whole number from 0 up" in check_data(f"cub:{cub}").faults[0].message


def test_every_planted_fault_of_a_folder_is_named(folder: Path) -> None:
    (folder / "train.csv").write_text(
        "path,label\na.png,ant\nb.png,fox\n../b.png,fox\nc.png,ant\na.png,fox\ne.png,fox\n"
    )
    (folder / "test.csv").write_text(
        "path,label,x0,y0,x1,y1\nc.png,ant,0,0,21,5\nd.png,owl,1,1,2,2\nb.png,fox,1,1,1,2\n"
    )
    (folder / "masks/b.png").unlink()
    assert found(str(folder)) == {
        ("corrupt line", "train.csv, line 4: path must be relative to the root and stay below it, got '../b.png'"),
        ("label", "train.csv, line 6: a.png is labelled 'fox', but 'ant' in line 2"),
        ("missing image", "The image e.png cannot be read: No such file or directory"),
        ("box outside", "test.csv, line 2: the box 0,0,21,5 leaves its image, 20 x 12 pixels"),
        ("label", "test.csv, line 3: label 'owl' is none of the 2 classes"),
        ("corrupt line", "test.csv, line 4: 0 <= x0 < x1 and 0 <= y0 < y1 must hold, got '1,1,1,2'"),
        ("missing mask", "b.png has no mask, while other images of test have one"),
        ("in two splits", "b.png is in train and in test"),
        ("in two splits", "c.png is in train and in test"),
    }
    (folder / "test.csv").write_text("path,x0\nc.png,0\n")
    assert ("corrupt line", "test.csv lacks the column label, y0, x1, y1; its header is 'path,x0'") in found(
        str(folder)
    )


def test_a_split_that_is_not_there_is_a_remark(cub: Path, folder: Path) -> None:
    for file in (cub / "metadata/CUB/train").iterdir():
        file.unlink()
    (cub / "metadata/CUB/train").rmdir()
    report = check_data(f"cub:{cub}")
    assert report.faults == ()
    assert "there is no train split" in report.warnings
    (folder / "test.csv").write_text("path,label\nc.png,ant\n")
    for file in (folder / "masks").iterdir():
        file.unlink()
    remark = "test has neither boxes nor masks: it can be classified, not localized"
    assert check_data(str(folder)).warnings == (remark,)


@pytest.mark.slow
def test_the_command_prints_one_page(cli: Callable[..., subprocess.CompletedProcess[str]], cub: Path) -> None:
    (cub / "metadata/CUB/val/localization.txt").write_text("nonsense\n" * 25)
    for file in (cub / "CUB").glob("*/test_1.jpg"):
        truncate(file)
    page = cli("data", "check", f"cub:{cub}", "--decode", code=1).stdout
    assert "corrupt line (25)" in page
    assert "localization.txt, line 20: path,x0,y0,x1,y1 in UTF-8 is accepted, got 'nonsense'" in page
    assert "localization.txt, line 21" not in page
    assert "and 5 more" in page
    assert "unreadable image (2)" in page
    assert "note: test has 4 images; CUB-200-2011 officially has 5,794" in page
    assert "29 faults" in page  # two images of val have no box


@pytest.mark.slow
def test_the_command_tells_sound_data_from_none(
    cli: Callable[..., subprocess.CompletedProcess[str]], cub: Path, tmp_path: Path
) -> None:
    report = json.loads(cli("data", "check", f"cub:{cub}", "--json").stdout)
    assert report["splits"][2]["boxes"] == 4
    assert report["faults"] == []
    nothing = cli("data", "check", f"cub:{tmp_path}/nowhere", code=2).stderr
    assert f"source cub:{tmp_path}/nowhere has no split to check" in nothing
    assert "Traceback" not in nothing


def test_pets_are_not_downloaded_to_be_checked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"trainval\.txt does not exist"):
        check_data(f"pet:{tmp_path}")


def test_faults_are_ready_for_json(cub: Path) -> None:
    (cub / "CUB" / ALBATROSS / "test_0.jpg").unlink()
    missing = f"The image {ALBATROSS}/test_0.jpg cannot be read: No such file or directory"
    report = json.loads(json.dumps(check_data(f"cub:{cub}").to_dict()))
    assert report["faults"] == [{"kind": "missing image", "message": missing}]
