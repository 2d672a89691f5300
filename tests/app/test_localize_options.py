"""`iir-fast localize` in this process: what it asks the network for, and what it says is what `load` finds."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import iir_fast
from iir_fast.app.cli import main
from iir_fast.app.tables import threshold_text
from iir_fast.evaluation import FixedThreshold
from iir_fast.localization import Predictor
from iir_fast.models import DEFAULT_MAP, MAPS, IIRNetwork, NetworkSpec, save_checkpoint


@pytest.mark.parametrize("map", [None, *MAPS])
def test_the_map_and_the_batches_are_those_that_were_asked_for(map, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    spec = NetworkSpec("small_cnn", ("cat", "dog"), image_size=32, hidden=8)
    network = spec.build()
    network.prototypes.update(torch.rand(2, 2, network.backbone.channels), torch.arange(2))
    save_checkpoint(tmp_path / "model.pt", spec, network)
    random = np.random.default_rng(0)
    for i in range(5):
        noise = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8))
        noise.resize((40 + 10 * i, 60)).save(tmp_path / f"{i}.png")
    paths = [str(tmp_path / f"{i}.png") for i in range(5)]
    predictor = iir_fast.load(tmp_path / "model.pt", device="cpu")
    found = {each: [image.objects[0].box for image in predictor.localize(paths, each, 0.75)] for each in MAPS}
    assert len(set(zip(*found.values(), strict=True))) == 5
    assert found["both"] != found["cam"] != found["evidence"] != found["both"]

    asked, localize = [], IIRNetwork.localize

    def note(self, inputs, labels=None, maps=MAPS, **options):
        asked.append((len(inputs), maps))
        return localize(self, inputs, labels, maps, **options)

    monkeypatch.setattr(IIRNetwork, "localize", note)
    chosen = [] if map is None else ["--map", map]
    options = ["--threshold", "0.75", "--batch-size", "2", "--device", "cpu"]
    main(["localize", *paths, "--model", str(tmp_path / "model.pt"), *chosen, *options])
    boxes = [tuple(each["box"]) for each in json.loads(capsys.readouterr().out)]
    map = map or DEFAULT_MAP
    assert boxes == found[map]
    assert asked == [(2, (map,)), (2, (map,)), (1, (map,))]

    def of_each_map(self, map, refinement="none"):
        return FixedThreshold((1 + MAPS.index(map or DEFAULT_MAP)) / 8, "val")

    monkeypatch.setattr(Predictor, "threshold", of_each_map)
    main(["localize", *paths, "--model", str(tmp_path / "model.pt"), *chosen])
    assert f"threshold {threshold_text((1 + MAPS.index(map)) / 8)}, chosen on: val." in capsys.readouterr().err
    main(["localize", *paths, "--model", str(tmp_path / "model.pt"), "--without-object", "cat", "dog"])
    printed = capsys.readouterr()
    assert all(each["box"] == [0, 0, 0, 0] and each["probability"] > 0.5 for each in json.loads(printed.out))
    assert "no area" not in printed.err
