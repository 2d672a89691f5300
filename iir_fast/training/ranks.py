"""The processes that train together: who they are, how they meet, what they agree on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: number of this process.
        size: how many there are; 1 without torchrun.
        local_rank: number of this process on its machine, and so of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and draws progress bars."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """Return this process's own among devices of that type."""
        return torch.device("cuda", self.local_rank) if device.type == "cuda" and self.size > 1 else device

    def synchronize_batch_norm(self, model: nn.Module, device: torch.device) -> None:
        """Let the batch norms inside a model take their statistics over all ranks; those of one rank do already.

        Raises:
            ValueError: there are several ranks and they do not train on GPUs.
        """
        if self.size == 1:
            return
        if device.type != "cuda":
            raise ValueError(
                f"sync_batch_norm is set for {self.size} processes on device {device.type}; it works on GPUs alone."
            )
        nn.SyncBatchNorm.convert_sync_batchnorm(model)

    def all_true(self, condition: bool, device: torch.device) -> bool:
        """Tell whether a condition holds on every rank; all of them must ask."""
        if self.size == 1:
            return condition
        flag = torch.tensor(float(condition), device=device)
        dist.all_reduce(flag, op=dist.ReduceOp.MIN)
        return bool(flag)

    def gather_objects(self, value: Any) -> list[Any]:
        """Gather a value of every rank, in their order, on each of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait until every rank has come here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """Join the ranks that torchrun has started; one without it.

    The process group is made for the time of the block: nccl for GPUs, gloo for CPUs. One that is there already is
    used and left.

    Args:
        device: "auto", "cpu" or "cuda".
    """
    if dist.is_available() and dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)))
        return
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Ranks()
        return
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), local_rank)
    finally:
        dist.destroy_process_group()
