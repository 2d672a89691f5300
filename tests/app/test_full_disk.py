"""Commands on a disk that is full: one sentence, exit status 2, and every file as it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from iir_fast.models import NetworkSpec
from iir_fast.training import RunFolder, TrainConfig

SCRIPT = Path(__file__).with_name("full_disk.py")
IMAGES = 30
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the folder of an untrained run, `run`, and images in class folders, `data`."""
    root = tmp_path_factory.mktemp("full")
    for i in range(IMAGES):
        file = root / "data" / ("test" if i % 3 else "train") / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40, 40), 10 + i).save(file)
    RunFolder(root / "run").open(TrainConfig().with_options(data=f"images:{root / 'data'}", hidden=8), "refuse")
    torch.manual_seed(0)
    spec = NetworkSpec("small_cnn", ("a", "b"), image_size=64, hidden=8)
    RunFolder(root / "run").checkpoints.save(1, spec, spec.build(), {})
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "copy")


@pytest.fixture
def full(start_python, root: Path) -> Callable[..., str]:
    """Runs a command and gives what it says, once it is seen that it left nothing half-written."""

    def run(limit: int, *arguments: object, **variables: str) -> str:
        errors = start_python(SCRIPT, limit, *arguments, **variables).finish(code=2).stderr
        assert "Traceback" not in errors
        assert list(root.rglob("*.part")) == []
        return errors

    return run


def test_boxes_and_overlays(full, root):
    (root / "boxes.csv").write_text("old")
    localize = ["localize", root / "data/test", "--model", root / "run"]
    assert "boxes.csv could not be written (" in full(1500, *localize, "--output", root / "boxes.csv")
    assert (root / "boxes.csv").read_text() == "old"
    # The boxes of the images before are there all the same.
    errors = full(1500, *localize, "--output", root / "other.csv", "--overlays", root / "pictures", "--batch-size", 1)
    assert ".png could not be written (" in errors
    assert list((root / "pictures").iterdir()) == []
    assert (root / "other.csv").read_text().startswith("path,width")


def test_score_maps(full, root):
    errors = full(100_000, "evaluate", root / "run", "--maps", "cam", "--save-maps", root / "maps")
    assert ".png.npy could not be written (" in errors
    assert list(root.rglob("*.npy")) == []


def test_a_report(full, root, cli):
    page = root / "run/report.html"
    cli("report", root / "run", "--maps", "cam", "--limit", 2)
    before = page.read_bytes()
    assert "report.html could not be written (" in full(20_000, "report", root / "run", "--maps", "cam")
    assert page.read_bytes() == before


def test_an_exported_network(full, root):
    assert "mine.pt2 could not be written (" in full(20_000, "export", root / "run", root / "mine.pt2")


def test_the_feature_cache_is_refused_before_it_is_filled(full, root):
    options = ["--data", f"images:{root / 'data'}", "--freeze-backbone", "--feature-cache", root / "cache"]
    small = ["--classes-per-batch", 2, "--images-per-class", 2, "--hidden", 8]
    errors = full(100_000, "train", root / "new", *options, *small)
    assert "cache has no room for " in errors
    assert "name another folder by feature_cache" in errors
    assert list((root / "cache").iterdir()) == []
