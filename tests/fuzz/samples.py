"""Small sound input of every kind, made anew for each session."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image, features
from safetensors.torch import save_file
from torchvision.transforms.v2.functional import pil_to_tensor

from iir_fast.app.runs import evaluate_run
from iir_fast.comparison import read_comparison
from iir_fast.comparison.results import Cost, cost_file, run_folder
from iir_fast.data import open_split, pack_split
from iir_fast.models.small_cnn import SmallCNN
from iir_fast.training import RunFolder, TrainConfig, train

SIDES = (24, 16)
CLASSES = ("ant", "bee")
SUFFIXES = (
    *(".png", ".jpg", ".gif", ".bmp", ".ppm", ".tif", ".webp"),
    *(suffix for suffix, codec in ((".jp2", "jpg_2000"), (".avif", "avif")) if features.check(codec)),
)


def make(root: Path) -> None:
    """Write all samples below a folder, whose own path stands in some of them."""
    for number, suffix in enumerate(SUFFIXES):
        _image(root / "images" / f"{number}{suffix}", number)
        _image(root / "classes" / CLASSES[number % 2] / f"{number}{suffix}", number)
    Image.fromarray(_pixels(1)).convert("RGBA").save(root / "images" / "alpha.png")
    Image.fromarray(_pixels(2)).quantize(8).save(root / "images" / "palette.png", transparency=1)
    (turned := Image.Exif())[0x112] = 6
    Image.fromarray(_pixels(3)).save(root / "images" / "turned.jpg", exif=turned)
    _folder(root / "data")
    for name, annotation in (("CUB", "box"), ("ILSVRC", "box"), ("OpenImages", "masks")):
        _metadata(root / "wsol", name, annotation)
    _pet(root / "pet" / "oxford-iiit-pet")
    for split in ("train", "test"):
        pack_split(str(root / "data"), root / "shards", split)
    _weights(root / "weights")
    _run(root)
    _comparison(root)


def _pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIDES[1], SIDES[0], 3), np.uint8)


def _image(file: Path, seed: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_pixels(seed)).save(file)


def _mask(file: Path, values: tuple[int, int] = (0, 255)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((SIDES[1], SIDES[0]), values[0], np.uint8)
    pixels[4:12, 5:20] = values[1]
    Image.fromarray(pixels).save(file)


def _folder(root: Path) -> None:
    for split, count in (("train", 4), ("test", 3)):
        lines = ["path,label,x0,y0,x1,y1"]
        for i in range(count):
            path = f"{split}/{i}.png"
            _image(root / path, i)
            _mask(root / "masks" / path)
            lines.append(f"{path},{CLASSES[i % 2]},5,4,20,12")
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")


def _metadata(root: Path, name: str, annotation: str) -> None:
    for split in ("train", "val", "test"):
        paths = [f"{split}/{CLASSES[i]}/{i}.png" for i in range(2)]
        if name == "CUB":
            paths = [f"{CLASSES[i]}/{split}{i}.png" for i in range(2)]
        for path in paths:
            _image(root / name / path)
            _mask(root / name / "segmentations" / path)
        lines = {
            "image_ids": paths,
            "class_labels": [f"{path},{i}" for i, path in enumerate(paths)],
            "image_sizes": [f"{path},24,16" for path in paths],
            "localization": [f"{path},5,4,19,11" for path in paths],
        }
        if annotation == "masks":
            lines["localization"] = [
                f"{path},segmentations/{path},{'' if i else paths[0]}" for i, path in enumerate(paths)
            ]
        if split == "train":
            lines["image_ids_proxy"] = paths
        folder = root / "metadata" / name / split
        folder.mkdir(parents=True)
        for file, content in lines.items():
            (folder / f"{file}.txt").write_text("\n".join(content))


def _pet(root: Path) -> None:
    for split, file in (("train", "trainval"), ("test", "test")):
        names = [f"{CLASSES[i]}_{1 if split == 'train' else 2}{i}" for i in range(2)]
        for name in names:
            _image(root / "images" / f"{name}.jpg")
            _mask(root / "annotations" / "trimaps" / f"{name}.png", (2, 1))
        lines = "\n".join(f"{name} {i + 1} 1 {i + 1}" for i, name in enumerate(names))
        (root / "annotations" / f"{file}.txt").write_text(lines)


def _weights(root: Path) -> None:
    root.mkdir()
    torch.manual_seed(0)
    state = SmallCNN().state_dict()
    torch.save(state, root / "plain.pt")
    torch.save(
        {"epoch": 3, "best": np.float64(1), "state_dict": {f"module.{k}": v for k, v in state.items()}},
        root / "wrapped.ckpt",
    )
    torch.save({"model": state}, root / "old.pth", _use_new_zipfile_serialization=False)
    save_file({k: v.contiguous() for k, v in state.items()}, root / "safe.safetensors")


def _run(root: Path) -> None:
    data, folder = root / "data", RunFolder(root / "run")
    options = {
        "epochs": 1,
        "max_steps": 1,
        "classes_per_batch": 2,
        "images_per_class": 1,
        "image_size": 32,
        "workers": 0,
    }
    config = TrainConfig().with_options(data=str(data), hidden=4, **options)
    train(config, folder.root, "refuse")
    evaluate_run(folder.root, save_maps=root / "kept", details=root / "details", device="cpu")
    shutil.move(root / "kept" / "cam", root / "maps")
    shutil.rmtree(root / "kept")
    ids = open_split(str(data), "test", pil_to_tensor).ids
    stack = np.stack([np.load(root / "maps" / f"{each}.npy") for each in ids])
    (root / "stacks").mkdir()
    np.save(root / "stacks" / "maps.npy", stack.astype(np.float32))
    np.savez_compressed(root / "stacks" / "maps.npz", stack)
    np.save(root / "stacks" / "ranked.npy", np.array([[0, 1]] * len(ids)))
    (root / "stacks" / "ranked.csv").write_text("".join(f"{each},bee,ant\n" for each in ids))
    (root / "recipes").mkdir()
    (root / "recipes" / "recipe.yaml").write_text(config.to_yaml())


def _comparison(root: Path) -> None:
    rows = {"IIR": None, "CAM": {"method": "cam"}, "Gaussian": {"baseline": "center"}}
    base = {"data": str(root / "data"), "hidden": 4, "image_size": 32, "epochs": 1}
    content = {"title": "both", "seeds": 1, "maps": ["cam", "both"], "base": base, "rows": rows}
    content["published"] = [{"name": "Theirs", "source": "A paper", "pxap": 5.5}]
    (root / "comparison").mkdir()
    file = root / "comparison" / "plan.yaml"
    file.write_text(json.dumps(content))
    metrics = json.loads((root / "run" / "metrics.json").read_text())
    for run in read_comparison(file).runs:
        folder = run_folder(root / "compared", run)
        folder.open(run.config, "refuse")
        folder.write_metrics(metrics)
        cost_file(folder).write_text(json.dumps(asdict(Cost(1.0, 1.0, 10**8, "cpu", 1))))
    (root / "compared" / "results.json").write_text(json.dumps({"title": "both", "maps": ["cam"], "runs": []}))
    (root / "compared" / "table.md").write_text("| old |\n")
