"""The processes that train together: who they are, how they meet, what they agree on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

Answer = TypeVar("Answer")

LIMIT = timedelta(minutes=30)
"""How long ranks wait for one of them within an update, or for a checkpoint to be written."""
ALONE = timedelta(days=1)
"""How long they wait for the first one, while it opens data, makes the feature cache or validates."""
GRACE = timedelta(minutes=1)
"""How long a rank whose training fails waits for what others say of it: they come to the same place a little later."""
FAULT, ENDED, HEARD = "iir_fast/fault", "iir_fast/ended/{}", "iir_fast/heard/{}"
"""What ranks tell each other when training fails: why, in a sentence; who has ended; who has heard why."""


@dataclass
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: number of this process.
        size: how many there are; 1 without torchrun.
        local_rank: number of this process on its machine, and so of its GPU.
        step: number of the update at hand, for what is said if a rank is missed in it.
        patient: the ranks as a group that waits for as long as `ALONE`; None: the default group.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    step: int = 0
    patient: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and draws progress bars."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """Return this process's own among devices of that type."""
        return torch.device("cuda", self.local_rank) if device.type == "cuda" and self.size > 1 else device

    def synchronize_batch_norm(self, model: nn.Module, device: torch.device) -> None:
        """Let the batch norms inside a model take their statistics over all ranks; those of one rank do already. Where
        several do not train on GPUs, raise a ValueError."""
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
        """Wait until every rank has come here, be it after hours that the first one has worked alone."""
        if self.size > 1:
            dist.barrier(self.patient)


@contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """Join the ranks that torchrun has started; one without it.

    The process group is made for the time of the block: nccl for GPUs, gloo for CPUs. One that is there already is
    used and left. A fault on one rank ends the block on all of them.

    Raises:
        RuntimeError: another rank has failed, and this is its sentence; or one has died, or has not come for `LIMIT`:
            the sentence names it and the step. Inside a kernel it is nccl that ends a waiting rank, after as long.
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
    store, rank, size = next(rendezvous("env://"))
    dist.init_process_group("nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=size, timeout=LIMIT)
    patient = cast(dist.ProcessGroup, dist.new_group(timeout=ALONE, backend="gloo"))
    ranks = Ranks(rank, size, local_rank, patient=patient)
    try:
        yield ranks
    except Exception as error:
        sentence = _in_time(partial(_hear_why, error, ranks, store), _of_missing([0], ranks))
        # Now the others hear of it: what they wait for is gone.
        dist.destroy_process_group()
        if ranks.is_first:
            # It may hold what they read.
            _in_time(partial(_find_missing, HEARD, ranks, store), list[int]())
        if sentence:
            raise RuntimeError(sentence) from error
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _hear_why(error: Exception, ranks: Ranks, told: Store) -> str:
    """Tell others why training ends here, or hear it from them: then it is returned, else an empty string."""
    told.set(ENDED.format(ranks.rank), "")
    sentence = ""
    if not isinstance(error, dist.DistError) and "gloo" not in str(error):
        told.compare_set(FAULT, "", f"rank {ranks.rank} has ended training: {error}")
    else:
        missing = _find_missing(ENDED, ranks, told, unless=FAULT)
        sentence = _of_missing(missing, ranks) if missing else f"step {ranks.step} has lost its ranks: {error}"
        # The first one to know tells it all.
        sentence = told.compare_set(FAULT, "", sentence).decode()
    told.set(HEARD.format(ranks.rank), "")
    return sentence


def _of_missing(missing: list[int], ranks: Ranks) -> str:
    names = f"rank {missing[0]} is" if len(missing) == 1 else f"ranks {', '.join(map(str, missing))} are"
    minutes = LIMIT.total_seconds() / 60
    where = f"in step {ranks.step}" if ranks.step else "before the first step"
    return f"{names} missed {where}: died, or stopped for {minutes:g} minutes and more; resume to go on."


def _find_missing(key: str, ranks: Ranks, told: Store, unless: str | None = None) -> list[int]:
    """List the ranks that do not tell this in time; stop looking where something else is told."""
    until = time.monotonic() + GRACE.total_seconds()
    while True:
        missing = [rank for rank in range(ranks.size) if not told.check([key.format(rank)])]
        if not missing or time.monotonic() > until or (unless and told.check([unless])):
            return missing
        time.sleep(0.05)


def _in_time(talk: Callable[[], Answer], otherwise: Answer) -> Answer:
    """Talk to others, unless who holds what is told is gone, or has stopped: then nobody answers for ever."""
    answers = [otherwise]

    def run() -> None:
        with suppress(dist.DistError):
            answers.append(talk())

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(2 * GRACE.total_seconds())
    return answers[-1]
