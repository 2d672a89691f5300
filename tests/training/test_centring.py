"""Which CAMs localize: chosen by labels alone, kept by checkpoints and runs."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from iir_fast.data import LocalizationDataset, image_transform
from iir_fast.models import MAPS, IIRNetwork, NetworkSpec, load_network, read_checkpoint
from iir_fast.training import Interrupted, TrainConfig, train
from iir_fast.training.centring import label_scores, prefers_centred

TINY = TrainConfig().with_options(
    train_images=80, test_images=20, epochs=2, classes_per_batch=4, images_per_class=4, hidden=8
)
SIDE = 64


class Colours(nn.Module):
    """A backbone whose map is how striped each colour is, 8 x 8: blurred, nothing is left of it."""

    channels, mean, std = 3, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d((images[..., 1:] - images[..., :-1]).abs(), SIDE // 8, ceil_mode=True)


class Patches(LocalizationDataset):
    """A square of red or green stripes, its class, on grey; in every image one of blue stripes, elsewhere."""

    def __init__(self, count: int = 40) -> None:
        labels = tuple(i % 2 for i in range(count))
        super().__init__(
            classes=("red", "green"),
            labels=labels,
            ids=tuple(map(str, range(count))),
            split="train",
            transform=image_transform(SIDE, Colours.mean, Colours.std),
        )

    @property
    def fingerprint(self) -> str:
        return "patches"

    def image(self, i: int) -> Image.Image:
        pixels = np.full((SIDE, SIDE, 3), 40, np.uint8)
        at = 8 * (i % 3)
        pixels[at : at + 24, 8:32:2, self.labels[i]] = 255
        pixels[40:56, 40:56:2, 2] = 255
        return Image.fromarray(pixels)

    def ground_truth(self, i: int):
        raise AssertionError("a box was looked at")


def network(common: tuple[float, float, float]) -> IIRNetwork:
    """Its classifiers know red from green; all classes' weights have something in common, which no logit shows."""
    made = NetworkSpec("small_cnn", ("red", "green"), SIDE, hidden=None, threshold="mean", class_mean=0.75).build()
    made.backbone = Colours()
    made.head = type(made.head)(3, 2, None, "mean", 0.75)
    made.prototypes = type(made.prototypes)(2, 3)
    with torch.no_grad():
        made.head.weight.copy_(torch.tensor([[9.0, -9, 0], [-9, 9, 0]]) + torch.tensor(common))
        made.head.bias.zero_()
    return made.eval()


def batch(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    data = Patches(count)
    return torch.stack([data[i][0] for i in range(count)]), torch.tensor(data.labels)


def test_a_box_of_the_object_is_told_from_one_of_something_else_by_the_label():
    images, labels = batch()
    made = network((0, 0, 60))
    missed = label_scores(made, images, labels, made.localize(images, labels).maps["both"])
    made.centred = True
    lit = label_scores(made, images, labels, made.localize(images, labels).maps["both"])
    assert lit.dtype == torch.float64
    assert lit.shape == (6,)
    assert 1 >= lit.min() > 0.2 > 0 > missed.max() > -1
    nothing = torch.zeros_like(made.localize(images).maps["both"])
    assert label_scores(made, images, labels, nothing).max() < 0


@pytest.mark.parametrize(
    ("common", "wanted"), [((0, 0, 60), True), ((0, 0, 0), False), ((60, 60, 0), False)], ids=["else", "none", "object"]
)
@pytest.mark.parametrize("before", [True, False])
def test_centred_cams_are_taken_where_the_mean_of_all_classes_lights_up_something_else(common, wanted, before):
    made = network(common)
    made.centred = before
    assert prefers_centred(made, Patches(), SIDE) is wanted
    assert made.centred is before


@pytest.mark.parametrize(
    ("mean", "count", "looked_at", "wanted"),
    [(0.6, 200, 200, False), (0.9, 200, 200, True), (0.2, 200, 64, False), (0.9, 20, 20, False), (0.9, 1, 1, False)],
    ids=["not sure", "sure", "hopeless", "few images", "one image"],
)
def test_a_difference_that_chance_could_have_made_is_none(mean, count, looked_at, wanted, monkeypatch):
    """The differences are `mean` +- 2, so that of n images it is sure from mean / 2 * sqrt(n) > 5 on."""
    seen: list[int] = []

    def scores(network, images, labels, maps):
        if not network.centred:
            return torch.zeros(len(images), dtype=torch.float64)
        seen.extend(labels.tolist())
        return mean + 2.0 * (1 - 2.0 * (torch.arange(len(images)) % 2)).double()

    monkeypatch.setattr("iir_fast.training.centring.label_scores", scores)
    assert prefers_centred(network((0, 0, 60)), Patches(count), SIDE) is wanted
    assert len(seen) == looked_at
    assert count < 20 or 0.3 < sum(seen) / len(seen) < 0.7, "both classes"


def test_centred_maps_are_those_of_a_head_that_keeps_nothing_of_the_mean_and_both_is_the_cam():
    torch.manual_seed(0)
    made = NetworkSpec("small_cnn", tuple("abc"), 32, hidden=6, class_mean=0.75).build().eval()
    images = torch.randn(4, 3, 32, 32)
    plain = made.localize(images, maps=MAPS)
    made.centred = True
    centred = made.localize(images, maps=MAPS)
    made.centred, made.head.class_mean = False, 0.0
    expected = made.localize(images, maps=MAPS).maps
    for name, found in (expected | {"both": expected["cam"]}).items():
        torch.testing.assert_close(centred.maps[name], found)
        assert not torch.equal(plain.maps[name], found)
    assert torch.equal(centred.logits, plain.logits)
    torch.testing.assert_close(expected["both"], (expected["cam"] * expected["evidence"]).sqrt())


def test_both_kinds_of_cams_are_judged_by_the_root_of_their_product_with_the_evidence(monkeypatch):
    judged: dict[bool, torch.Tensor] = {}

    def scores(network, images, labels, maps):
        judged[network.centred] = maps
        return torch.zeros(len(images), dtype=torch.float64)

    monkeypatch.setattr("iir_fast.training.centring.label_scores", scores)
    made, data = network((0, 0, 60)), Patches(1)
    prefers_centred(made, data, SIDE)
    for centred, judged_maps in judged.items():
        made.centred = centred
        maps = made.localize(data[0][0][None], torch.tensor(data.labels), ("cam", "evidence")).maps
        torch.testing.assert_close(judged_maps, (maps["cam"] * maps["evidence"]).sqrt())
        assert not torch.equal(judged_maps, maps["cam"])
    assert set(judged) == {True, False}


def test_the_choice_is_made_at_the_end_and_kept(monkeypatch, tmp_path, capsys):
    asked: list[str] = []

    def prefers(network, dataset, size):
        asked.append(dataset.split)
        assert not network.training
        return True

    monkeypatch.setattr("iir_fast.training.run.prefers_centred", prefers)
    found = train(TINY.with_options(checkpoint_every=3), tmp_path / "run")
    assert asked == ["train"]
    assert "CAMs without the mean of all classes localize from step 10 on" in capsys.readouterr().err
    assert found.spec.centred
    assert found.model.centred
    assert load_network(tmp_path / "run")[0].centred
    files = sorted((tmp_path / "run/checkpoints").glob("*.pt"))
    assert [read_checkpoint(each)[0].centred for each in files] == [False, True]
    again = train(TINY.with_options(checkpoint_every=3), tmp_path / "run", "resume")
    assert again.spec.centred
    assert again.model.centred
    assert len(asked) == 1
    for method in ("cam", "acol"):
        assert not train(TINY.with_options(method=method), tmp_path / method).spec.centred
    assert len(asked) == 1


def test_a_signal_that_comes_with_the_last_step_loses_no_choice(monkeypatch, tmp_path):
    def prefers(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        return True

    monkeypatch.setattr("iir_fast.training.run.prefers_centred", prefers)
    with pytest.raises(Interrupted, match="stopped at step 10 of 10"):
        train(TINY, tmp_path / "run")
    assert load_network(tmp_path / "run")[0].centred
    assert train(TINY, tmp_path / "run", "resume").spec.centred


def test_training_is_the_same_whatever_is_chosen(monkeypatch, tmp_path):
    def weights(name: str, choice: bool) -> dict[str, torch.Tensor]:
        monkeypatch.setattr("iir_fast.training.run.prefers_centred", lambda *_: choice)
        return train(TINY, tmp_path / name, validate=lambda *_: (0.0, {})).model.state_dict()

    one, other = weights("one", True), weights("other", False)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_whose_choice_is_none_is_refused(tmp_path):
    train(TINY, tmp_path / "run")
    file = max((tmp_path / "run/checkpoints").glob("*.pt"))
    content = torch.load(file, weights_only=True)
    content["spec"]["centred"] = "yes"
    torch.save(content, file)
    with pytest.raises(ValueError, match="centred is neither true nor false"):
        read_checkpoint(file)
