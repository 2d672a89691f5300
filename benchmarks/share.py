"""What the loss costs in a real training step: ``python -m benchmarks.share``.

Backbone, head and loss on 224x224 images, forward and backward, untrained weights, 1000 classes: with the package and
with the naive peer. The backbone's part and the part of head and loss are timed in the same step, one after the other,
so that a few milliseconds show beside seconds. Writes ``results/DEVICE_share.json``.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import agreement, machine, peers
from benchmarks.clock import Clock
from benchmarks.scaling import RESULTS
from benchmarks.workloads import IMAGES_PER_CLASS, PACKAGE
from iir_fast import DualCAMHead, IIRLoss
from iir_fast.models import create_backbone

BACKBONES = {"resnet50": 16, "vgg16": 8}
"""Name -> stride of the map: 14x14 and 28x28."""
BATCH = {"cpu": 8, "cuda": 64}
IMAGE_SIZE, CLASSES, ROUNDS = 224, 1000, 3

LossOf = Callable[[DualCAMHead, Tensor, Tensor], Tensor]


class Share(NamedTuple):
    """Median seconds of the two parts of a step."""

    backbone: float
    head_and_loss: float


def package_loss(head: DualCAMHead, features: Tensor, labels: Tensor) -> Tensor:
    out = head(features, labels)
    loss = F.cross_entropy(out.logits_a, labels) + F.cross_entropy(out.logits_b, labels)
    return loss + IIRLoss()(out)


def peer_loss(head: DualCAMHead, features: Tensor, labels: Tensor) -> Tensor:
    return peers.step_with_class_maps(features, head.weight, head.bias, labels)[0]


LOSSES: dict[str, LossOf] = {PACKAGE: package_loss, "naive": peer_loss}


def measure(backbone: nn.Module, head: DualCAMHead, images: Tensor, labels: Tensor, rounds: int) -> dict[str, Share]:
    """Seconds of backbone and of head and loss, for every contender in turns.

    Args:
        backbone: turns images into features.
        head: on a shared map.
        images: [B,3,H,W].
        labels: int64 [B].
        rounds: how many steps of each contender count; one more warms up.
    """
    clock = Clock(images.device.type)
    parts: dict[str, list[Share]] = {name: [] for name in LOSSES}
    for _ in range(rounds + 1):
        for name, loss_of in LOSSES.items():
            backbone.zero_grad()
            head.zero_grad()
            parts[name].append(_step(backbone, head, images, labels, loss_of, clock))
    return {name: Share(*map(statistics.median, zip(*each[1:], strict=True))) for name, each in parts.items()}


def _step(
    backbone: nn.Module, head: DualCAMHead, images: Tensor, labels: Tensor, loss_of: LossOf, clock: Clock
) -> Share:
    """One training step, its graph cut at the features: the same work, each part under the clock by itself."""
    made: list[Tensor] = []
    forward = clock.seconds(lambda: made.append(backbone(images)))
    features = made[0].detach().requires_grad_()
    head_and_loss = clock.seconds(lambda: loss_of(head, features, labels).backward())
    backward = clock.seconds(lambda: made[0].backward(features.grad))
    return Share(forward + backward, head_and_loss)


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    agreement.check_formulas(device)
    batch = BATCH[device]
    shares = []
    for name, stride in BACKBONES.items():
        torch.manual_seed(0)
        backbone = create_backbone(name, output_stride=stride).to(device)
        head = DualCAMHead(backbone.channels, CLASSES, hidden=None, threshold="mean", class_mean=1.0).to(device)
        images = torch.randn(batch, 3, IMAGE_SIZE, IMAGE_SIZE).to(device)
        labels = (torch.arange(batch) // IMAGES_PER_CLASS).to(device)
        for contender, share in measure(backbone, head, images, labels, ROUNDS).items():
            setting = {"name": name, "stride": stride, "batch": batch, "contender": contender}
            shares.append({**setting, "backbone": share.backbone, "head_and_loss": share.head_and_loss})
            print(f"{name}, {contender}: {share}, {share.head_and_loss / sum(share):.1%} for head and loss")
    path = RESULTS / f"{device}_share.json"
    record = {"kind": "share", "machine": machine.describe(device), "shares": shares}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"Shares in {path.name}.")


if __name__ == "__main__":
    main()
