"""`iir-fast localize` and what it writes: formats, names that are no text, closed pipes, broken networks."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from iir_fast.app.cli import main
from iir_fast.data import ProceduralDataset
from iir_fast.models import IIRNetwork, NetworkSpec, create_classifier, save_checkpoint

LATIN = os.fsdecode(b"caf\xe9.png")
"""A file name of another encoding than UTF-8."""


def save(file: Path, change: str = "") -> Path:
    """Write a checkpoint of a network with random weights, of which one is changed."""
    spec = NetworkSpec("small_cnn", ("cat", "dog"), image_size=32, hidden=8)
    torch.manual_seed(0)
    network: IIRNetwork = spec.build()
    network.prototypes.update(torch.rand(2, 2, network.backbone.channels), torch.arange(2))
    with torch.no_grad():
        if change == "nan":
            network.head.weight.view(-1)[0] = torch.nan
        elif change == "zero":
            network.head.weight.zero_()
    save_checkpoint(file, spec, network)
    return file


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "mine.pt")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of noise in a folder, one of them with a name that is no UTF-8."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for name in ("a.png", "b.png", LATIN):
        pixels = generator.integers(0, 256, (5, 5, 3), np.uint8)
        Image.fromarray(pixels).resize((60, 40)).save(folder / name)
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that ends with exit status 2, and nothing on standard output; what it says."""
    with pytest.raises(SystemExit) as stop:
        main(["localize", *map(str, arguments)])
    said = capsys.readouterr()
    assert (stop.value.code, said.out) == (2, "")
    return said.err


def test_names_that_are_no_text_are_escaped_in_every_format(model, photos, tmp_path, capsys, monkeypatch):
    command = ["localize", str(photos), "--model", str(model)]
    main([*command, "--output", str(tmp_path / "a.CSV"), "--overlays", str(tmp_path / "overlays")])
    rows = list(csv.DictReader((tmp_path / "a.CSV").read_text().splitlines()))
    assert [os.path.basename(row["path"]) for row in rows] == ["a.png", "b.png", r"caf\udce9.png"]
    assert (tmp_path / "overlays" / f"00002-{LATIN}").is_file()
    main([*command, "--format", "coco", "--output", str(tmp_path / "a.json")])
    assert json.loads((tmp_path / "a.json").read_text())["images"][2]["file_name"] == str(photos / LATIN)
    several = ["--max-objects", "3", "--threshold", "0.9", "--masks", str(tmp_path / "masks")]
    main(
        [*command, "--format", "yolo", "--output", str(tmp_path / "yolo"), *several, "--overlays", str(tmp_path / "o")]
    )
    assert len(list((tmp_path / "o").iterdir())) == 3  # all objects of a class in one picture
    assert len(list((tmp_path / "masks").iterdir())) > 3
    assert (tmp_path / "yolo/images" / f"00002-{LATIN}").resolve() == photos / LATIN
    main([*command, "--format", "voc", "--output", str(tmp_path / "voc")])
    assert "<filename>00002-caf\\xe9.png</filename>" in (tmp_path / "voc/Annotations/00002-caf\udce9.xml").read_text()
    # On standard input and output, too, whatever the locale.
    listed = io.TextIOWrapper(io.BytesIO(os.fsencode(photos / LATIN) + b"\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", listed)
    capsys.readouterr()
    main(["localize", "-", "--model", str(model), "--format", "csv"])
    assert r"caf\udce9.png,60,40" in capsys.readouterr().out


def test_masks_are_saved_beside_overlays(model, photos, tmp_path):
    options = ["--max-objects", "3", "--threshold", "0.9", "--masks", str(tmp_path / "masks")]
    main(["localize", str(photos / "a.png"), "--model", str(model), *options, "--output", str(tmp_path / "a.json")])
    boxes = [each["box"] for each in json.loads((tmp_path / "a.json").read_text())]
    files = ["00000-a.png", *(f"00000-a-{rank}.png" for rank in range(2, len(boxes) + 1))]
    assert sorted(os.listdir(tmp_path / "masks")) == sorted(files)
    assert len(boxes) > 1
    for file, (x0, y0, x1, y1) in zip(files, boxes, strict=True):
        with Image.open(tmp_path / "masks" / file) as image:
            mask = np.asarray(image)
        assert (mask.shape, set(np.unique(mask)) - {0}) == ((40, 60), {255})
        mask = mask.copy()
        mask[y0:y1, x0:x1] = 0
        assert not mask.any()


def test_what_cannot_be_written_is_said_before_a_model_is_loaded(photos, tmp_path, capsys):
    (tmp_path / "file").touch()
    for options, words in [
        (["--output", tmp_path / "none/a.csv"], f"output is {tmp_path}/none/a.csv, and there is no folder"),
        (["--output", tmp_path / "a.txt"], "whose suffix tells no format"),
        (["--format", "yolo"], "name a folder as output"),
        (["--overlays", tmp_path / "file"], "file"),
        (["--masks", tmp_path / "file/masks"], "file"),
    ]:
        said = refused(capsys, photos, "--model", "nowhere", *options)
        assert words in said
        assert "nowhere" not in said
    with pytest.raises(SystemExit):
        main(["export", "nowhere", str(tmp_path / "none/a.pt2")])
    assert f"file is {tmp_path}/none/a.pt2, and there is no folder" in capsys.readouterr().err


def test_a_network_with_nan_is_refused(photos, tmp_path, capsys):
    broken = save(tmp_path / "broken.pt", "nan")
    assert f"the network in {broken} is broken: 'head.weight' holds NaN" in refused(capsys, photos, "--model", broken)


def test_boxes_without_area_are_said(photos, tmp_path, capsys):
    flat = save(tmp_path / "flat.pt", "zero")
    main(["localize", str(photos), "--model", str(flat), "--map", "cam"])
    said = capsys.readouterr()
    assert [each["box"] for each in json.loads(said.out)] == [[0, 0, 0, 0]] * 3
    assert (
        f"3 boxes have no area, as their maps are constant or their images tiny; first: {photos / 'a.png'}." in said.err
    )
    main(["localize", str(photos), "--model", str(flat), "--map", "cam", "--format", "coco"])
    coco = json.loads(capsys.readouterr().out)
    assert (len(coco["images"]), coco["annotations"]) == (3, [])


def test_a_pipe_is_written_to(model, photos):
    read, write = os.pipe()
    main(["localize", str(photos / "a.png"), "--model", str(model), "--output", f"/dev/fd/{write}"])
    os.close(write)
    with os.fdopen(read) as pipe:
        assert len(json.load(pipe)) == 1


def closed_pipe() -> io.TextIOWrapper:
    """What `| true` leaves to write to."""
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w")


@pytest.mark.parametrize("form", ["json", "csv", "coco"])
def test_a_closed_pipe_ends_the_command_quietly(form, model, photos, capsys, monkeypatch):
    with closed_pipe() as out, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as stop:
            main(["localize", str(photos), "--model", str(model), "--format", form, "--threshold", "0.5"])
        print("nothing reads this", file=out)
    assert stop.value.code == 141
    assert "iir-fast:" not in capsys.readouterr().err


def test_another_broken_pipe_is_an_error(model, photos, capsys, monkeypatch):
    def broken(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("iir_fast.data.find_images", broken)
    assert "Broken pipe" in refused(capsys, photos, "--model", model)


def test_localize_takes_a_classifier_as_it_is_in_place_of_a_run(tmp_path, monkeypatch, capsys):
    create = timm.create_model  # weights without network
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **options: create(name, **options))
    for name in "ab":
        ProceduralDataset("test", 2).image(0).save(tmp_path / f"{name}.png")
    options = ["--pretrained", "test_resnet", "--device", "cpu", "--top-k", "2", "--refine", "guided"]
    drawn = ["--overlay-format", "jpg", "--overlay-size", "32", "--overlay-opacity", "0"]
    main(["localize", str(tmp_path), *options, "--overlays", str(tmp_path / "out"), *drawn])
    printed, said = capsys.readouterr()
    found = json.loads(printed)
    assert [Path(each["path"]).name for each in found] == ["a.png", "a.png", "b.png", "b.png"]
    classes = create_classifier("test_resnet", "random")[1].classes
    assert all(each["label"] == classes[each["class_index"]] for each in found)
    names = [f"{image}{rank}.jpg" for image in ("00000-a", "00001-b") for rank in ("-2", "")]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == names
    with Image.open(tmp_path / "out" / names[0]) as picture:
        assert (picture.format, picture.size) == ("JPEG", (32, 32))
    assert "threshold: each image's own, which no box has chosen." in said
    for wrong, sentence in (
        ([*options, "--map", "both"], "map is 'both'; accepted is 'cam'"),
        ([], "choose one of --model, a run of your own, and --pretrained, a classifier as it is"),
        ([*options, "--model", str(tmp_path)], "choose one of --model"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["localize", str(tmp_path / "a.png"), *wrong])
        assert sentence in capsys.readouterr().err
