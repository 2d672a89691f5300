"""One rank of test_gather.py: python gather_rank.py FOLDER DTYPE. Where there is one rank it takes the whole batch.

The loss and the gradients of the parameters and of this rank's features go to FOLDER/RANKS-RANK.pt.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F

from iir_fast import DualCAMHead, IIRLoss

LABELS = torch.tensor([0, 1, 2, 0, 2, 1, 1, 0])


def main(folder: Path, dtype: torch.dtype) -> None:
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.manual_seed(0)
    head: torch.nn.Module = DualCAMHead(5, 3, hidden=None).to(dtype)
    images = torch.randn(8, 5, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if ranks > 1:
        dist.init_process_group("gloo")
        head = torch.nn.parallel.DistributedDataParallel(head)
    rows = slice(rank * 8 // ranks, (rank + 1) * 8 // ranks)
    features = images[rows].to(dtype).requires_grad_()
    out = head(features, LABELS[rows])
    # Alone it does not gather: what gathering makes of the loss is compared with the loss itself.
    loss = IIRLoss(gather=ranks > 1)(out)
    # The cross-entropies too: DDP averages a gradient only once every parameter has one.
    loss = loss + sum(F.cross_entropy(logits, LABELS[rows]) for logits in (out.logits_a, out.logits_b))
    loss.backward()
    loss = loss.detach()
    if ranks > 1:
        dist.all_reduce(loss)
        dist.destroy_process_group()
    # DDP averages over the ranks what is a parameter's; the features' gradient is of the sum of the ranks' losses.
    found = {
        "loss": loss / ranks,
        "gradients": [each.grad for each in head.parameters()],
        "rows": (rows.start, rows.stop),
        "features": features.grad / ranks,
    }
    torch.save(found, folder / f"{ranks}-{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), getattr(torch, sys.argv[2]))
