"""The trackers of a training, as the command line starts them: TensorBoard itself, stand-ins of the others."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

Cli = Callable[..., subprocess.CompletedProcess[str]]
TRAIN = ["--train-images", "80", "--test-images", "6", "--hidden", "8", "--epochs", "2", "--log-every", "5"]
TRAIN += ["--classes-per-batch", "4", "--images-per-class", "4", "--validate", "test", "--seed", "3"]
LOGGED = [("loss/total", 5), ("loss/total", 10), ("validation", 5), ("validation", 10)]
PICTURES = ["test/0", "test/1", "test/2"]
START = "from iir_fast.__main__ import main\nmain()\n"
# Each writes what it is told to the file CALLS, a line each.
WRITE = """
import json, os
from contextlib import contextmanager

def write(*values):
    with open(os.environ["CALLS"], "a") as file:
        file.write(json.dumps(values) + "\\n")

@contextmanager
def opened(**how):
    write("open", how)
    try:
        yield Run()
    except BaseException as error:
        write("failed", type(error).__name__)
        raise
    write("close")
"""
STAND_INS = {
    "wandb": """
class Run:
    def log(self, values, step):
        figures = {name: value for name, value in values.items() if not isinstance(value, Image)}
        pictures = {name: value.size for name, value in values.items() if isinstance(value, Image)}
        write("log", figures, pictures, step)

class Image:
    def __init__(self, picture):
        self.size = picture.size

def init(name, config):
    return opened(name=name, options=config)
""",
    "mlflow": """
class Run:
    pass

def start_run(run_name):
    return opened(name=run_name)

def log_params(values):
    write("options", values)

def log_metrics(values, step):
    write("log", values, {}, step)

def log_image(picture, key, step):
    write("log", {}, {key: picture.size}, step)
""",
}


@pytest.mark.slow
def test_tensorboard_has_figures_and_overlays_of_each_epoch(cli: Cli, tmp_path: Path) -> None:
    cli("train", tmp_path / "run", *TRAIN, "--tracker", "tensorboard")
    log = EventAccumulator(str(tmp_path / "run")).Reload()
    assert sorted(log.Tags()["images"]) == PICTURES
    assert [(name, each.step) for name in ("loss/total", "validation") for each in log.Scalars(name)] == LOGGED
    first, last = log.Images("test/0")
    assert (first.step, last.step) == (5, 10)
    pictures = [Image.open(BytesIO(each.encoded_image_string)) for each in (first, last)]
    assert [each.size for each in pictures] == [(64, 64)] * 2
    assert pictures[0].tobytes() != pictures[1].tobytes()
    cli("train", tmp_path / "run", *TRAIN, "--resume", "auto")  # without


@pytest.mark.slow
@pytest.mark.parametrize("name", STAND_INS)
def test_the_others_get_the_same(name: str, start_python: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text(WRITE + STAND_INS[name])
    (tmp_path / "start.py").write_text(START)
    calls = tmp_path / "calls.jsonl"
    tracked = [tmp_path / "run", *TRAIN, "--tracker", name]
    start_python(tmp_path / "start.py", "train", *tracked, CALLS=str(calls)).finish()
    first, *rest = map(json.loads, calls.read_text().splitlines())
    options = first[1].pop("options", None) or rest.pop(0)[1]
    assert first == ["open", {"name": "run"}]
    assert (options["seed"], options["method"], options["tracker"]) == (3, "iir", name)
    assert rest.pop() == ["close"]
    logged = [(figures, pictures, step) for _, figures, pictures, step in rest]
    found = [(key, step) for key in ("loss/total", "validation") for each, _, step in logged if key in each]
    assert found == LOGGED
    shown = [(key, tuple(size), step) for _, each, step in logged for key, size in each.items()]
    assert shown == [(key, (64, 64), step) for step in (5, 10) for key in PICTURES]


@pytest.mark.parametrize("name", ["tensorboard", *STAND_INS])
def test_one_that_is_not_installed_is_said_before_anything_is_done(
    name: str, start_python: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "start.py").write_text(f"import sys\nsys.modules[{name!r}] = None\n{START}")
    said = start_python(tmp_path / "start.py", "train", tmp_path / "run", *TRAIN, "--tracker", name).finish(2).stderr
    assert said == f'iir-fast: tracker {name} needs {name}, which is not installed: pip install "iir-fast[{name}]"\n'
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_one_that_does_not_open_is_said_in_a_sentence(start_python: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "wandb.py").write_text("def init(**how):\n    raise Exception('no key')\n")
    (tmp_path / "start.py").write_text(START)
    said = start_python(tmp_path / "start.py", "train", tmp_path / "run", *TRAIN, "--tracker", "wandb").finish(2).stderr
    assert said.endswith("iir-fast: tracker wandb cannot be opened: no key\n")
