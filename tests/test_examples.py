"""The example scripts as processes: with the loss, without its lines, under autocast, on two ranks, twice alike."""

from __future__ import annotations

import importlib.util
import math
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
WITHOUT_LIGHTNING = importlib.util.find_spec("pytorch_lightning") is None
SCRIPTS = [
    "plain_pytorch",
    pytest.param(
        "lightning_module",
        marks=pytest.mark.skipif(WITHOUT_LIGHTNING, reason="pytorch-lightning is not installed (extra: examples)"),
    ),
    "timm_training",
]
SMALL = ["--backbone", "test_resnet", "--batch-size", "16", "--device", "cpu"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    write_images = runpy.run_path(str(EXAMPLES / "generated_images.py"))["write_images"]
    return write_images(tmp_path_factory.mktemp("data"), train=96, val=20)


@pytest.fixture
def run(start_python: Callable[..., Any]) -> Callable[..., str]:
    def run(script: Path, *arguments: object) -> str:
        environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES)}
        return start_python(script, *SMALL, *arguments, **environment).finish().stdout

    return run


def losses(printed: str) -> list[float]:
    return [float(number) for number in re.findall(r"loss:? ([\d.]+|nan|inf)", printed)]


def without_loss(script: Path) -> str:
    """The script without the marked lines, and with what they replaced."""
    kept = [line for line in script.read_text().splitlines() if not line.endswith(("  # IIR", "  # box"))]
    return "\n".join(line.replace("# was: ", "") for line in kept) + "\n"


@pytest.mark.parametrize("name", ["plain_pytorch", "lightning_module", "timm_training"])
def test_the_loss_takes_fewer_than_ten_lines(name):
    script = EXAMPLES / f"{name}.py"
    lines = script.read_text().splitlines()
    assert 0 < sum(line.endswith("  # IIR") for line in lines) < 10
    assert sum(line.endswith("  # box") for line in lines) == 2
    # Nothing of the loss hides in lines without the mark.
    plain = without_loss(script).partition('"""\n\nfrom __future__')[2]
    assert not re.search("iir|dualcam|subgroup|logits_a|cam_|save_box", plain, re.IGNORECASE)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_trains_and_draws_a_box_with_the_same_bits_every_time(run, name, images, tmp_path):
    weights = []
    for out in (tmp_path / "first", tmp_path / "second"):
        printed = run(EXAMPLES / f"{name}.py", "--data", images, "--out", out, "--epochs", 2)
        assert losses(printed)
        assert all(math.isfinite(loss) for loss in losses(printed))
        assert 0 <= float(re.findall(r"accuracy: ([\d.]+)", printed)[-1]) <= 1
        x0, y0, x1, y1 = map(int, re.findall(r"box: (\d+) (\d+) (\d+) (\d+)", printed)[0])
        assert 0 <= x0 < x1 <= 64
        assert 0 <= y0 < y1 <= 64
        assert Image.open(out / "box.png").size == (64, 64)
        weights.append(torch.load(out / "weights.pt", weights_only=True))
    first, second = weights
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_without_the_marked_lines_it_is_a_plain_classifier(run, name, images, tmp_path):
    script = tmp_path / f"{name}.py"
    script.write_text(without_loss(EXAMPLES / f"{name}.py"))
    printed = run(script, "--data", images, "--out", tmp_path / "out", "--epochs", 2)
    assert all(math.isfinite(loss) for loss in losses(printed))
    assert "accuracy" in printed
    assert "box" not in printed
    weights = torch.load(tmp_path / "out" / "weights.pt", weights_only=True)
    (classifier,) = (tensor for tensor in weights.values() if tensor.dim() == 2)
    assert len(classifier) == 10


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_trains_under_autocast(run, name, images, tmp_path):
    printed = run(EXAMPLES / f"{name}.py", "--data", images, "--out", tmp_path, "--epochs", 2, "--bf16")
    assert all(math.isfinite(loss) for loss in losses(printed))
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in weights.values())


@pytest.mark.slow
def test_the_loss_falls_once_it_is_fully_on(run, images, tmp_path):
    printed = run(EXAMPLES / "plain_pytorch.py", "--data", images, "--out", tmp_path, "--epochs", 8)
    found = losses(printed)
    assert found[0] < max(found), "regulation waits for the classifiers"
    assert found[-1] < max(found)


@pytest.mark.slow
def test_two_ranks_train_on_generated_images_and_speak_once(on_ranks, tmp_path):
    script = EXAMPLES / "plain_pytorch.py"
    printed = "".join(on_ranks(2, script, *SMALL, "--out", tmp_path, "--epochs", 1, "--image-size", 32))
    assert len(losses(printed)) == 3  # 800 images make 25 steps of 2 x 16
    assert all(math.isfinite(loss) for loss in losses(printed))
    assert printed.count("accuracy") == printed.count("box") == 1
    assert len(list((tmp_path / "images" / "train").rglob("*.png"))) == 800
