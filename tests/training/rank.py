"""One rank of test_ranks.py, started as by torchrun: python rank.py FOLDER. Two updates in float64.

Alone it takes the whole batch. Gradients of the second update, weights and prototypes go to FOLDER/RANKS-RANK.pt.
So does the fault of a third update, which the last rank alone makes impossible.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from iir_fast.methods import Learner
from iir_fast.models import NetworkSpec
from iir_fast.training import TrainConfig
from iir_fast.training.loading import Batch
from iir_fast.training.ranks import joined_ranks
from iir_fast.training.update import Updater

# On four ranks the first two hold no pair, and classes 0 and 1 span several.
LABELS = torch.tensor([0, 1, 2, 0, 1, 1, 3, 3])


def main(folder: Path) -> None:
    torch.manual_seed(0)
    config = TrainConfig().with_options(
        hidden=None, freeze_backbone=True, optimizer="sgd", regulation="agreement", accumulate=2, threshold="learned"
    )
    model = NetworkSpec("small_cnn", tuple("abcd"), 32, hidden=None, threshold="learned").build().double()
    # Batch norm over the batch is another function of half of it.
    model.backbone.requires_grad_(False).eval()
    images = torch.randn(4, len(LABELS), 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():  # a little above chance, more on some images than on others: regulation has begun
        pooled = model.backbone(images.flatten(0, 1)).mean(dim=(2, 3))
        wanted = 0.3 * torch.nn.functional.one_hot(LABELS.repeat(4)).double()
        model.head.weight += torch.linalg.lstsq(pooled, wanted).solution.T
    with joined_ranks("cpu") as ranks:
        learner = Learner(config.method, model, config.caches_features)
        updater = Updater(config, learner, ranks, updates_per_epoch=10)
        share = len(LABELS) // ranks.size
        rows = slice(ranks.rank * share, (ranks.rank + 1) * share)
        for pair in images.split(2):
            with torch.no_grad():
                batches = [Batch(model.backbone(each[rows]), LABELS[rows], [], 0.0) for each in pair]
            updater.update(batches)
        gradients = [each.grad.clone() for each in model.head.parameters()]
        if ranks.rank == ranks.size - 1:
            batches[0].inputs[-1] = torch.inf
        fault = updater.update(batches).non_finite
        found = {"model": model.state_dict(), "gradients": gradients, "fault": fault}
        torch.save(found, folder / f"{ranks.size}-{ranks.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
