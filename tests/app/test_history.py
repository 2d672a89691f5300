"""A run's folder says what was done in it, when, by what and on which data."""

from __future__ import annotations

import json
import shutil
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import torch
from PIL import Image

import iir_fast
from iir_fast.app.history import add_to_history, read_history
from iir_fast.app.machine import commit
from iir_fast.app.runs import evaluate_run, load_run
from iir_fast.data import open_split
from iir_fast.training import TrainConfig, train


def write_photos(folder: Path) -> Path:
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(5):
            Image.effect_noise((20, 20), 40 + i).save(folder / name / f"{i}.png")
    return folder


def test_training_its_resumption_and_evaluations_are_written_down(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/a/place/train.py", "two words"])
    photos, root = write_photos(tmp_path / "photos"), tmp_path / "run"
    options = {"image_size": 32, "hidden": 8, "classes_per_batch": 2, "images_per_class": 2, "epochs": 1}
    config = TrainConfig().with_options(data=str(photos), **options)
    assert repr(train(config, root)) == "TrainResult(small_cnn, 2 classes, 0 images skipped)"
    evaluation = evaluate_run(root, maps=("cam",))
    assert repr(load_run(root)) == "LoadedRun(small_cnn, 2 classes, 2 test images)"
    shown = evaluation._repr_mimebundle_([], [])
    assert "Top-1 Cls" in shown["text/html"]
    assert len(repr(evaluation)) < 100
    (photos / "cat/0.png").touch()  # a time of modification is all that changes
    train(config, root, "resume")
    first, evaluated, resumed = found = read_history(root)
    assert [each["did"] for each in found] == ["train", "evaluate test", "train"]
    for each in found:
        assert (each["version"], each["torch"], each["commit"]) == (iir_fast.__version__, torch.__version__, commit())
        assert each["command"] == "train.py 'two words'"
        assert "Python" in each["machine"]
        assert timedelta(0) <= datetime.now(timezone.utc) - datetime.fromisoformat(each["date"]) < timedelta(minutes=5)
        assert each["processes"] == 1
    images = open_split(str(photos), "train", lambda image: torch.zeros(3)).fingerprint
    assert (first["data"]["source"], first["data"]["images"], evaluated["data"]["images"]) == (str(photos), 8, 2)
    assert images == resumed["data"]["fingerprint"] != first["data"]["fingerprint"]
    assert resumed["data"]["names_and_labels"] == first["data"]["names_and_labels"]
    assert evaluated["data"]["names_and_labels"] != first["data"]["names_and_labels"]
    train(config, root, "overwrite")
    assert [each["did"] for each in read_history(root)] == ["train"]


def test_a_damaged_history_is_kept_aside(tmp_path, capsys):
    photos = write_photos(tmp_path / "photos")
    dataset = open_split(str(photos), "train", lambda image: torch.zeros(3))
    for damaged in ("[{", '{"did": "train"}', "[" * 100_000):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        (tmp_path / "run").mkdir()
        (tmp_path / "run/history.json").write_text(damaged)
        add_to_history(tmp_path / "run", "train", str(photos), dataset)
        assert (tmp_path / "run/history.json.damaged-1").read_text() == damaged
        assert "history.json is damaged" in capsys.readouterr().err
        assert len(json.loads((tmp_path / "run/history.json").read_text())) == 1
