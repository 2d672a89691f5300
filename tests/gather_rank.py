"""One rank of test_gather.py: python gather_rank.py RANK RANKS PORT OUT. Alone (RANKS 1) it takes the whole batch."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F

from iir_fast import DualCAMHead, IIRLoss

LABELS = torch.tensor([0, 1, 2, 0, 2, 1, 1, 0])


def main(rank: int, ranks: int, port: str, out: Path) -> None:
    torch.manual_seed(0)
    head: torch.nn.Module = DualCAMHead(5, 3, hidden=None).double()
    features = torch.randn(8, 5, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if ranks > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
        head = torch.nn.parallel.DistributedDataParallel(head)
    rows = slice(rank * 8 // ranks, (rank + 1) * 8 // ranks)
    result = head(features[rows], LABELS[rows])
    loss = IIRLoss(regulation="mixed", gather=True)(result.cam_a, result.cam_b, features[rows], LABELS[rows])
    # The cross-entropies too: DDP averages a gradient only once every parameter has one.
    loss = loss + sum(F.cross_entropy(logits, LABELS[rows]) for logits in (result.logits_a, result.logits_b))
    loss.backward()
    loss = loss.detach()
    if ranks > 1:
        dist.all_reduce(loss)
        dist.destroy_process_group()
    torch.save({"loss": loss / ranks, "gradients": [p.grad for p in head.parameters()]}, out)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
