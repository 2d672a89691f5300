"""RunFolder: refuse, resume, overwrite; nothing is removed that no run wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iir_fast.training import RunFolder, TrainConfig

CONFIG = TrainConfig()
# The first version's, flat.
EARLIER = "data: procedural\nmethod: iir\nbackbone: small_cnn\nregulation: dual\nseed: 0\ndevice: auto\nworkers: 0\n"


def finished(root: Path, config: TrainConfig = CONFIG) -> RunFolder:
    """The folder of a run that has an evaluation."""
    folder = RunFolder(root)
    folder.open(config, "refuse")
    folder.write_metrics({"test": {}})
    return folder


def test_an_existing_run_is_refused_and_untouched(tmp_path):
    folder = finished(tmp_path / "run")
    with pytest.raises(FileExistsError, match="exists; choose to resume or to overwrite it"):
        folder.open(CONFIG.with_options(seed=1), "refuse")
    assert TrainConfig.from_yaml(folder.config.read_text()) == CONFIG


def test_an_empty_folder_is_as_good_as_none(tmp_path):
    RunFolder(tmp_path).open(CONFIG, "refuse")
    assert (tmp_path / "config.yaml").is_file()


@pytest.mark.parametrize("if_exists", ["refuse", "resume", "overwrite"])
@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "it has no config.yaml"),
        ("server: {port: 80}", "its config.yaml does not name data, seed, device, method"),
        ("", "config.yaml holds no mapping"),
        ("{seed: 3, device: cpu}", "its config.yaml does not name data, method"),
        (f"{EARLIER}server: {{port: 80}}\n", "config.yaml names server; known options"),
    ],
)
def test_a_folder_that_is_no_run_is_never_touched(if_exists, config, reason, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src/thesis.tex").write_text("years of work")
    (tmp_path / "metrics.json").write_text("mine")
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileExistsError, match=rf"is not the folder of a run \({reason}.*\); it is left alone"):
        RunFolder(tmp_path).open(CONFIG, if_exists)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "src/thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("text", [None, EARLIER])
def test_overwrite_starts_anew_and_leaves_what_no_run_wrote(text, tmp_path, capsys):
    folder = finished(tmp_path / "run")
    if text is not None:
        folder.config.write_text(text)
    for name in ("checkpoints/00000003.pt", "report_files/0000.js", "events.out.tfevents.1", "metrics.json.damaged-1"):
        (folder.root / name).parent.mkdir(exist_ok=True)
        (folder.root / name).touch()
    folder.open(CONFIG.with_options(seed=1), "overwrite")
    assert [file.name for file in folder.root.iterdir()] == ["config.yaml"]
    assert capsys.readouterr().err == ""
    finished_again = ["checkpoints/00000003.pt", "checkpoints/mine.txt", "notes.txt"]
    for name in finished_again:
        (folder.root / name).parent.mkdir(exist_ok=True)
        (folder.root / name).touch()
    folder.open(CONFIG, "overwrite")
    left = sorted(file.relative_to(folder.root).as_posix() for file in folder.root.rglob("*") if file.is_file())
    assert left == ["checkpoints/mine.txt", "config.yaml", "notes.txt"]
    assert "run, as no run wrote it: checkpoints, notes.txt.\n" in capsys.readouterr().err


@pytest.mark.parametrize("if_exists", ["refuse", "resume"])
def test_a_start_that_finished_no_step_is_started_anew(if_exists, tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    folder.open(CONFIG, "refuse")
    (folder.root / "events.out.tfevents.1").touch()
    (folder.root / "notes.txt").touch()
    folder.open(CONFIG.with_options(epochs=9), if_exists)
    assert sorted(file.name for file in folder.root.iterdir()) == ["config.yaml", "notes.txt"]
    assert TrainConfig.from_yaml(folder.config.read_text()) == CONFIG.with_options(epochs=9)
    said = capsys.readouterr().err
    assert "run holds no finished step and is started anew." in said
    assert "as no run wrote it: notes.txt." in said


def test_resume_refuses_another_configuration_and_names_the_option(tmp_path):
    folder = finished(tmp_path / "run")
    folder.open(CONFIG, "resume")
    with pytest.raises(ValueError, match="differently: method was 'iir' and is 'cam'\\."):
        folder.open(CONFIG.with_options(method="cam", log_every=3), "resume")
    with pytest.raises(ValueError, match=r"differently: temperature was 0\.1 and is 0\.2\."):
        folder.open(CONFIG.with_options(temperature=0.2), "resume")
    with pytest.raises(ValueError, match="epochs was 5 and is 9"):
        folder.open(CONFIG.with_options(epochs=9), "resume")


@pytest.mark.parametrize(
    "options",
    [
        *({name: 0.5} for name in ("learning_rate", "head_lr_mult", "weight_decay", "momentum", "ema_decay", "clip")),
        *({name: 3} for name in ("accumulate", "classes_per_batch", "images_per_class", "max_steps", "hidden", "seed")),
        *({name: True} for name in ("flip", "crop", "channels_last", "compile")),
        {"optimizer": "sgd"},
        {"schedule": "cosine"},
        {"precision": "bf16"},
        {"non_finite": "skip"},
        {"weights": "imagenet"},
        {"image_size": 96},
    ],
    ids=lambda options: next(iter(options)),
)
def test_whatever_decides_the_result_stays_as_it_was(options, tmp_path):
    folder = finished(tmp_path / "run")
    with pytest.raises(ValueError, match=rf"configured differently: {next(iter(options))} was"):
        folder.check(CONFIG.with_options(**options), "resume")


@pytest.mark.parametrize(
    "content", ["", '{"test": {"cam"', "[]", '{"test": []}', '{"test": {"cam": 3}}', '{"test": {"cam": {"pxap": "3"}}}']
)
def test_damaged_metrics_are_named_set_aside_and_followed_by_new_ones(content, tmp_path, capsys):
    folder = RunFolder(tmp_path)
    folder.metrics.write_text(content)
    with pytest.raises(ValueError, match=r"metrics\.json is damaged: "):
        folder.read_metrics()
    assert folder.metrics.read_text() == content
    assert folder.sound_metrics() == {}
    assert "metrics.json is damaged" in capsys.readouterr().err
    folder.write_metrics({"test": {"cam": {"pxap": 3}}})
    assert folder.sound_metrics() == {"test": {"cam": {"pxap": 3}}} == json.loads(folder.metrics.read_text())
    assert (tmp_path / "metrics.json.damaged-1").read_text() == content
