"""Only promised formats are opened, whatever a file is called and wherever it lies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from iir_fast.data import BrokenImageError, image_transform, open_split
from iir_fast.data.images import read_header, read_image, read_mask, read_trimap

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 12\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is there once Ghostscript was started: a program of that name, the only one, makes it."""
    program, started = tmp_path / "bin" / "gs", tmp_path / "started"
    program.parent.mkdir()
    program.write_text(f"#!{os.path.realpath('/bin/sh')}\n: > '{started}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return started


def test_the_program_is_started_by_an_image_that_is_opened_as_anything(ghostscript: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(EPS)
    with Image.open(tmp_path / "a.png") as image, pytest.raises(OSError, match=r"."):
        image.convert("RGB")
    assert ghostscript.exists()


@pytest.mark.parametrize(
    "read",
    [
        lambda root: read_image("a.png", root),
        lambda root: read_mask(root, "a.png", upright=True),
        lambda root: read_trimap(root, "a.png"),
        lambda root: read_header(root, "a.png", upright=True),
    ],
    ids=["image", "mask", "trimap", "size"],
)
def test_an_eps_is_no_image(read: Callable[[Path], Any], ghostscript: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(EPS)
    with pytest.raises(BrokenImageError, match=r"a\.png cannot be read: cannot identify image file; accepted are JPEG"):
        read(tmp_path)
    assert not ghostscript.exists()


def test_nor_is_it_one_in_a_shard(
    ghostscript: Path, tmp_path: Path, write_shard: Callable[[Path, list[tuple[str, bytes]]], None]
) -> None:
    write_shard(tmp_path / "train/a.tar", [("x.png", EPS), ("x.cls", b"0")])
    dataset = open_split(f"shards:{tmp_path}", "train", image_transform(16, (0.5,) * 3, (0.5,) * 3))
    with pytest.raises(BrokenImageError, match=r"x\.png cannot be read: cannot identify image file"):
        dataset.image(0)
    assert not ghostscript.exists()


def test_a_photograph_with_several_pictures_is_a_jpeg(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (20, 12), "red"), Image.new("RGB", (20, 12), "blue")
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    assert np.asarray(read_image("a.jpg", tmp_path))[5, 5, 0] > 200
