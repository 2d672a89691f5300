"""The commands as processes: train, evaluate, score, localize, export, demo, and what they say of bad input."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import onnxruntime
import pytest
import yaml
from PIL import Image

import iir_fast
from iir_fast.app.cli import main
from iir_fast.data import ProceduralDataset, image_transform, read_image
from iir_fast.methods import METHODS, SPG
from iir_fast.training import RunFolder, TrainConfig

RANKS = "top1_loc", "top5_loc", "no_box_top1_loc", "no_box_top5_loc", "top1_accuracy", "top5_accuracy"
NOTHING_CLASSIFIED = {**dict.fromkeys(RANKS), "top_peaks": []}
SMALL = ["--image-size", "64", "--hidden", "8", "--epochs", "1", "--classes-per-batch", "4", "--images-per-class", "4"]


def write_folder(root: Path) -> None:
    """A data set of image files: 60 to train on and 12 to test on, with boxes and masks."""
    for split, count in (("train", 60), ("test", 12)):
        dataset = ProceduralDataset(split, count)
        rows = ["path,label,x0,y0,x1,y1"]
        for i in range(count):
            for folder in ("images", "masks/images"):
                (root / folder / split).mkdir(parents=True, exist_ok=True)
            path = f"images/{split}/{i:02d}.png"
            dataset.image(i).save(root / path)
            truth = dataset.ground_truth(i)
            box = ",".join(str(int(edge)) for edge in truth.boxes[0])
            rows.append(f"{path},{dataset.classes[dataset.labels[i]]},{box}")
            Image.fromarray(truth.masks[0] * 255).save(root / "masks" / path)
        (root / f"{split}.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_folder(root)
    return root


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    # As a user starts it; the others need not import torch again.
    command = [sys.executable, "-m", "iir_fast", "train", out, "--data", folder, *SMALL, "--tracker", "tensorboard"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "MaxBoxAccV2" in result.stdout
    return out


@pytest.mark.slow
def test_train_leaves_configuration_checkpoint_metrics_and_scalars(trained, folder):
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["data"] == str(folder)
    assert config["model"]["hidden"] == 8
    metrics = json.loads((trained / "metrics.json").read_text())["test"]
    assert set(metrics) == {"evidence", "cam", "both"}
    assert metrics["cam"]["images"] == 12
    assert metrics["cam"]["pxap"] > 0
    assert metrics["cam"]["fixed_threshold"]["chosen_on"] == "test, the split it is reported on"
    assert (trained / "checkpoints" / "00000003.pt").is_file()
    assert list(trained.glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_an_existing_run_is_refused_resumed_or_overwritten(cli, trained, folder):
    again = ["train", trained, "--data", folder, *SMALL]
    assert "exists; choose to resume or to overwrite it" in cli(*again, code=2).stderr
    assert "exclude each other" in cli(*again, "--resume", "auto", "--overwrite", code=2).stderr
    assert "resumed at step 3 of 3" in cli(*again, "--resume", "auto").stderr
    assert "seed was 0 and is 5" in cli(*again, "--resume", "auto", "--seed", 5, code=2).stderr


@pytest.mark.slow
def test_overwrite_removes_all_that_was_written_and_nothing_else(cli, trained, folder, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "metrics.json").write_text("")  # what a full disk left
    assert "metrics.json is damaged" in cli("localize", folder / "images/test/00.png", "--model", run, code=2).stderr
    assert "it is kept as metrics.json.damaged-1" in cli("report", run, "--maps", "cam", "--limit", 2).stderr
    (run / "notes.txt").write_text("mine")
    said = cli("train", run, "--data", folder, *SMALL, "--overwrite", "--tracker", "tensorboard").stderr
    assert f"left in {run}, as no run wrote it: notes.txt.\n" in said
    names = {file.name.partition(".tfevents")[0] for file in run.iterdir()}
    assert names == {"checkpoints", "config.yaml", "events.out", "history.json", "metrics.json", "notes.txt", ".lock"}
    assert len(list(run.glob("events.*"))) == 1


@pytest.mark.slow
def test_a_start_that_failed_is_started_anew_by_the_same_command(cli, tmp_path):
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / "data" / split / name).mkdir(parents=True)
            ProceduralDataset(split, 10).image(0).save(tmp_path / "data" / split / name / "0.jpg")
    broken = tmp_path / "data/train/b/0.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])  # its header is sound
    few = ["--classes-per-batch", "2", "--images-per-class", "1"]
    command = ["train", tmp_path / "run", "--data", f"images:{tmp_path / 'data'}", *SMALL, *few]
    assert "b/0.jpg cannot be read" in cli(*command, code=2).stderr
    broken.write_bytes(whole)
    assert "holds no finished step and is started anew" in cli(*command).stderr
    assert (tmp_path / "run/metrics.json").is_file()


@pytest.mark.slow
def test_evaluate_prints_json_and_keeps_it(cli, trained, tmp_path):
    arguments = ["evaluate", trained, "--maps", "cam", "--threshold", "0.4", "--threshold-from", "train", "--json"]
    printed = json.loads(cli(*arguments).stdout)
    assert printed["cam"]["fixed_threshold"] == {"value": 0.4, "chosen_on": "train"}
    kept = json.loads((trained / "metrics.json").read_text())["test"]
    assert kept["cam"] == printed["cam"]
    details = ["--details", tmp_path / "details"]
    lines = dict(line.split(",", 1) for line in cli(*arguments[:-1], "--csv", *details).stdout.splitlines())
    assert float(lines["errors.none"]) == printed["cam"]["top1_loc"]
    assert (tmp_path / "details/images.csv").read_text().count("cam,images/test/") == 12
    assert float(lines["curves_v2.1.best"]) == printed["cam"]["curves_v2"][1]["best"]
    assert "| small_cnn | iir, cam map | " in cli(*arguments[:-1], "--paper").stdout
    assert set(kept) == {"evidence", "cam", "both"}
    assert "belong together" in cli("evaluate", trained, "--threshold", "0.4", code=2).stderr
    assert "not the folder of a run" in cli("evaluate", trained.parent, code=2).stderr


@pytest.mark.slow
def test_refined_maps_are_evaluated_apart(cli, trained, folder):
    before = json.loads((trained / "metrics.json").read_text())["test"]
    arguments = ["evaluate", trained, "--maps", "cam", "--json"]
    plain = json.loads(cli(*arguments).stdout)["cam"]
    refined = json.loads(cli(*arguments, "--refine", "grabcut").stdout)["cam"]
    assert refined["curve_v1"] != plain["curve_v1"]
    kept = json.loads((trained / "metrics.json").read_text())
    assert kept["test, grabcut"] == {"cam": refined}
    assert kept["test"] == before | {"cam": plain}
    found = cli("localize", folder / "images/test", "--model", trained)
    assert "threshold: each image's own, which no box has chosen." in found.stderr
    assert len(json.loads(found.stdout)) == 12
    found = cli("localize", folder / "images/test/00.png", "--model", trained, "--refine", "none")
    assert "chosen on: test, the split it is reported on" in found.stderr


@pytest.mark.slow
def test_score_maps_on_disk_give_the_figures_of_the_run_they_were_saved_from(cli, trained, folder, tmp_path):
    maps = tmp_path / "maps"
    fixed = ["--threshold", "0.4", "--threshold-from", "train", "--step", "0.02"]
    arguments = ["evaluate", trained, "--maps", "cam", "evidence", "--save-maps", maps, *fixed, "--json"]
    expected = json.loads(cli(*arguments).stdout)
    scored = cli("score", maps / "cam", "--data", folder, *fixed, "--json")
    assert json.loads(scored.stdout) == {**expected["cam"], **NOTHING_CLASSIFIED}
    assert "12/12" in scored.stderr
    rows = cli("score", maps / "evidence", "--data", folder, *fixed).stdout.splitlines()
    assert any("evidence" in row for row in rows)
    assert f"{expected['evidence']['max_box_acc_v2']:.1f}" in next(row for row in rows if "AccV2" in row)
    assert not any("Top-1" in row for row in rows)


@pytest.mark.slow
def test_score_takes_small_maps_and_predictions_of_any_program(cli, folder, tmp_path):
    random = np.random.default_rng(0)
    maps, ranked = tmp_path / "maps", tmp_path / "ranked.csv"
    dataset = ProceduralDataset("test", 12)
    lines = []
    for i in range(12):
        path = f"images/test/{i:02d}.png"
        (file := maps / f"{path}.npy").parent.mkdir(parents=True, exist_ok=True)
        small = cv2.resize(dataset.ground_truth(i).masks[0].astype(np.float64), (16, 16), interpolation=cv2.INTER_AREA)
        np.save(file, (250 * small + 5 * random.random((16, 16))).astype(np.uint8))
        first, *others = ((dataset.labels[i] + k) % 10 for k in ((1, 0, 2, 3, 4) if i % 2 else range(5)))
        lines.append(f"{path},class_{first},{','.join(map(str, others))}\n")
    ranked.write_text("".join(lines))
    arguments = ["score", maps, "--data", folder, "--resize", "--predictions", ranked, "--json"]
    metrics = json.loads(cli(*arguments).stdout)
    assert [metrics[f"{name}_loc"] for name in ("gt_known", "top1", "top5")] == [100, 50, 100]
    stack = np.stack([np.load(maps / f"images/test/{i:02d}.png.npy") for i in range(12)])
    np.savez_compressed(tmp_path / "all.npz", stack.astype(">f4"))
    assert json.loads(cli("score", tmp_path / "all.npz", *arguments[2:]).stdout) == metrics
    paper = cli(*arguments[:-1], "--paper", "--details", tmp_path / "details/of/it").stdout
    row = next(line for line in paper.splitlines() if "| maps " in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    figures = (metrics["max_box_acc_v2"], metrics["pxap"], metrics["piou"]["best"], metrics["top5_accuracy"])
    assert [cells[i] for i in (0, 2, 3, 4)] == ["-", "50.0", "100.0", "100.0"]
    assert [cells[i] for i in (6, 10, 11, 13)] == [f"{figure:.1f}" for figure in figures]
    lines = (tmp_path / "details/of/it/images.csv").read_text().splitlines()
    assert [line.rpartition(",")[2] for line in lines] == ["error", *["none", "class"] * 6]
    assert "json and csv exclude each other" in cli(*arguments, "--csv", code=2).stderr


@pytest.mark.slow
def test_score_looks_at_all_files_first_and_names_what_is_wrong(cli, folder, tmp_path):
    files = [tmp_path / f"images/test/{i:02d}.png.npy" for i in range(12)]
    files[0].parent.mkdir(parents=True)
    for file in files[3:]:
        np.save(file, np.eye(224, dtype=np.float32))
    os.mkfifo(files[1])
    np.save(files[2], np.array([folder], object))
    np.save(tmp_path / "other.npy", np.eye(224))
    said = cli("score", tmp_path, "--data", folder, code=2).stderr
    assert f"1 missing: {files[0]}" in said
    assert f"{files[1]} is not a regular file" in said
    assert f"{files[2]} cannot be read as an array of numbers: it holds object" in said
    assert f"1 of no image: {tmp_path / 'other.npy'}" in said
    assert "Traceback" not in said
    for file in files[:3]:
        file.unlink(missing_ok=True)
        np.save(file, np.eye(224, dtype=np.float32))
    result = cli("score", tmp_path, "--data", folder)
    assert "MaxBoxAccV2" in result.stdout
    assert f"passed over, score maps 1 of no image: {tmp_path / 'other.npy'}" in result.stderr
    assert "predictions names" in cli("score", tmp_path, "--data", folder, "--predictions", "no", code=2).stderr


@pytest.mark.slow
def test_report_writes_a_page_of_the_maps_asked_for(cli, trained, tmp_path):
    result = cli("report", trained, "--maps", "cam", "--limit", 5, "--out", tmp_path / "five.html")
    assert result.stdout == f"{tmp_path / 'five.html'}\n"
    page = (tmp_path / "five.html").read_text()
    assert '"maps":["cam"]' in page
    assert "images/test/07.png" in page
    assert "accepted is 1 or more" in cli("report", trained, "--limit", 0, code=2).stderr


@pytest.mark.slow
def test_localize_prints_boxes_and_draws_them(cli, trained, folder, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    images = [folder / "images/test/00.png", tmp_path / "broken.jpg", folder / "images/test/01.png"]
    overlays = ["--overlays", tmp_path / "overlays", "--top-k", 2]
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays" / "00000-00.png").symlink_to(tmp_path / "secret")
    result = cli("localize", *images, "--model", trained, "--skip-broken", *overlays)
    found = json.loads(result.stdout)
    assert [each["path"] for each in found] == [str(images[0])] * 2 + [str(images[2])] * 2
    assert all(len(each["box"]) == 4 and each["label"].startswith("class_") for each in found)
    assert "skipped 1 of 3 images" in result.stderr
    assert "broken.jpg" in result.stderr
    assert "threshold: each image's own" in result.stderr
    drawn = ["00000-00-2.png", "00000-00.png", "00002-01-2.png", "00002-01.png"]
    assert sorted(file.name for file in (tmp_path / "overlays").iterdir()) == drawn
    assert not (tmp_path / "secret").exists()
    to_file = ["--batch-size", 1, "--output", tmp_path / "boxes.csv"]
    stopped = cli("localize", *images, "--model", trained, *to_file, code=2)
    assert "broken.jpg" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert stopped.stdout == ""
    [row] = csv.DictReader((tmp_path / "boxes.csv").read_text().splitlines())
    assert (row["path"], row["width"], row["height"]) == (str(images[0]), "64", "64")
    # What is no file is written to, not replaced.
    (tmp_path / "null").symlink_to("/dev/null")
    cli("localize", images[0], "--model", trained, "--output", tmp_path / "null")
    assert (tmp_path / "null").is_char_device()


@pytest.mark.slow
def test_localize_keeps_its_bar_on_the_terminal_and_its_boxes_on_stdout(trained, folder):
    listed = f"{folder}/images/test/05.png\n\n{folder}/images/test/00.png\n"
    sources = ["-", f"{folder}/images/test/0[0-3].png", folder / "images/test"]
    options = ["--model", trained, "--format", "coco", "--batch-size", 5, "--threshold", 0.4]
    command = [sys.executable, "-m", "iir_fast", "localize", *map(str, [*sources, *options])]
    terminal, other_end = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # the other end is closed
            while True:
                shown.append(os.read(terminal, 4096))

    reader = Thread(target=read)
    reader.start()
    result = subprocess.run(command, input=listed, stdout=subprocess.PIPE, stderr=other_end, text=True, check=False)
    os.close(other_end)
    reader.join()
    os.close(terminal)
    screen = b"".join(shown).decode()
    assert result.returncode == 0, screen
    coco = json.loads(result.stdout)
    order = (5, 0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11)
    expected = [f"{folder}/images/test/{number:02d}.png" for number in order]
    assert [image["file_name"] for image in coco["images"]] == expected
    assert [category["name"] for category in coco["categories"]] == [f"class_{k}" for k in range(10)]
    assert len(coco["annotations"]) == 12
    assert "12/12" in screen


@pytest.mark.slow
def test_export_writes_a_network_that_finds_the_same_classes(cli, trained, folder, tmp_path):
    result = cli("export", trained, tmp_path / "mine.onnx", "--map", "cam")
    assert result.stdout == f"{tmp_path / 'mine.onnx'}\n"
    session = onnxruntime.InferenceSession(tmp_path / "mine.onnx", providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["iir_fast.json"])
    predictor = iir_fast.load(trained)
    assert about["threshold"] == predictor.threshold("cam", "none").value
    transform = image_transform(about["image_size"], about["mean"], about["std"])
    paths = sorted((folder / "images/test").iterdir())
    images = np.stack([transform(read_image(path)).numpy() for path in paths])
    _, labels, _ = session.run(None, {"images": images})
    found = predictor.localize(paths, "cam")
    assert [about["classes"][label] for label in labels] == [each.objects[0].label for each in found]


@pytest.mark.slow
def test_methods_and_their_options_are_flags(cli, tmp_path):
    data = ["--train-images", "40", "--test-images", "10", "--clutter", "0.5"]
    options = ["--method", "spg", "--high", "0.8", "0.6", "0.8"]
    result = cli("train", tmp_path / "run", *data, *SMALL, *options)
    assert "train spg" in result.stderr
    assert "MaxBoxAccV2" in result.stdout
    config = TrainConfig.from_yaml((tmp_path / "run" / "config.yaml").read_text())
    assert (config.method, config.embedded.clutter) == (SPG(high=(0.8, 0.6, 0.8)), 0.5)


@pytest.mark.parametrize("method", METHODS)
def test_help_lists_the_options_of_the_chosen_method_alone(method, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        main(["train", "--method", method, "--help"])
    assert stop.value.code == 0
    shown = set(re.findall(r"^\W*(--[a-z][a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    expected = {"--" + name.replace("_", "-") for name in TrainConfig().with_options(method=method).options()}
    # Where --help itself stands depends on tyro's version.
    assert shown - {"--help"} == expected | {"--recipe", "--resume", "--overwrite", "--validate"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "cam", "--grid", "3"], "--grid is an option of method has; the method is cam."),
        (["--method=cam", "--temperature=3"], "--temperature is an option of method iir; the method is cam."),
        (["--rate", "0.5"], "--rate is an option of method has and adl and cutmix; the method is iir."),
        (["--has-grid", "3"], "--has-grid is now grid, an option of method has; the method is iir."),
        (["--method", "hide"], "method is 'hide'; accepted are iir, cam, has, acol, spg, adl, cutmix."),
    ],
)
def test_an_option_of_another_method_is_refused_with_a_sentence(arguments, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", str(tmp_path / "run"), *arguments])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_bad_data_is_named(cli, folder, tmp_path):
    def trained_on(rows: str, *options: str, code: int = 2) -> str:
        (folder / "bad").mkdir(exist_ok=True)
        (folder / "bad" / "train.csv").write_text(rows)
        return cli("train", tmp_path / "run", "--data", folder / "bad", *SMALL, *options, code=code).stderr

    assert "label" in trained_on("path,x0,y0,x1,y1\na.png,0,0,1,1\n")
    (folder / "bad").mkdir(exist_ok=True)
    (folder / "bad" / "a.png").write_bytes((folder / "images/train/00.png").read_bytes())
    assert "line 2" in trained_on("path,label,x0,y0,x1,y1\na.png,dog,0,0,65,1\n")
    (folder / "bad" / "b.png").write_bytes((folder / "images/train/01.png").read_bytes()[:700])
    stopped = trained_on("path,label\na.png,cat\nb.png,dog\n", "--classes-per-batch", "2")
    assert "b.png" in stopped
    assert "Traceback" not in stopped


@pytest.mark.slow
def test_sigint_ends_with_a_checkpoint_and_resume_finishes(folder, tmp_path):
    arguments = ["train", tmp_path / "run", "--data", folder, *SMALL, "--epochs", "400"]
    process = subprocess.Popen(
        [sys.executable, "-m", "iir_fast", *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    checkpoints = RunFolder(tmp_path / "run").checkpoints
    deadline = time.monotonic() + 120
    while not checkpoints.files() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "resume to go on from there" in errors
    assert checkpoints.newest() is not None


@pytest.mark.slow
def test_demo_prints_six_rows_and_saves_a_picture(cli, tmp_path):
    out = tmp_path / "demo"
    result = cli("demo", out, "--seeds", 2, "--epochs", 1, "--train-images", 80, "--test-images", 10)
    lines = result.stdout.splitlines()
    for row in ("CAM", "CAM, evidence map", "CAM, both", "IIR", "IIR, evidence map", "IIR, both"):
        assert sum(line.split("  ")[0].strip(" │|") == row for line in lines) == 1, row
    assert "±" in result.stdout
    assert (out / "localizations.png").stat().st_size > 10_000
    assert "choose to resume it, or name a new one" in cli("demo", out, code=2).stderr
