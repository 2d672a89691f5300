"""Stages that run a training step in every way that one is run in on a GPU, and compare it with the plain one."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.agreement import relative_error
from benchmarks.clock import Clock, interleave, paired_ratio, rounds_within
from benchmarks.first_light.processes import Fault, Findings, Skipped, one_line, trace
from benchmarks.first_light.setting import Setting
from benchmarks.workloads import Shape, make_features, make_labels, missing_compiler
from iir_fast import DualCAMHead, IIRLoss

COMPILED_TOLERANCE = 1e-4
"""Of a float32 step under inductor, which adds up in another order: as `app.doctor` has it of the operators."""
DDP_TOLERANCE = 1e-6
WARM_UPS, SECONDS_IN_TURNS = 3, 2.0
STEPS, LEARNING_RATE, MOMENTUM = 20, 0.02, 0.9
IMAGES, IMAGE_SIZE, TINY_IMAGE_SIZE, TRAINED_CLASSES = 16, 64, 8, 4
FIRST_AND_LAST = 5


class Step(nn.Module):
    """Two classifiers on a shared map, their cross-entropies and IIR's loss.

    Args:
        channels: of the map.
        classes: how many.
        gather: as in `IIRLoss`.
        hidden: as in `DualCAMHead`.
    """

    def __init__(self, channels: int, classes: int, gather: bool = False, hidden: int | None = None) -> None:
        super().__init__()
        self.head = DualCAMHead(channels, classes, hidden=hidden)
        self.regulation = IIRLoss(gather=gather)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss of features [B,C,H,W] and labels int64 [B]."""
        out = self.head(features, labels)
        loss = F.cross_entropy(out.logits_a, labels) + F.cross_entropy(out.logits_b, labels)
        regulated: Tensor = self.regulation(out)
        return loss + regulated


def results(step: nn.Module, features: Tensor, labels: Tensor) -> list[Tensor]:
    """The loss, and the gradients of the features and of all parameters, all of them made anew."""
    features.grad = None
    step.zero_grad(set_to_none=True)
    loss = step(features, labels)
    loss.backward()
    gradients = [each.grad for each in (features, *step.parameters())]
    return [loss.detach(), *(each for each in gradients if each is not None)]


def _prepare(shape: Shape, device: str, gather: bool = False) -> tuple[Step, Tensor, Tensor]:
    torch.manual_seed(0)
    step = Step(shape.channels, shape.classes, gather).to(device)
    return step, make_features(shape, device).requires_grad_(), make_labels(shape, device)


def graph(setting: Setting) -> Iterator[Findings]:
    """A step captured in a CUDA graph and replayed on other data gives the eager step's bits."""
    if setting.device != "cuda":
        raise Skipped("CUDA graphs are captured on a GPU only")
    shape = setting.shape("ResNet-50", torch.bfloat16, channels_last=True)
    step, features, labels = _prepare(shape, setting.device)
    first = features.detach().clone(), labels.clone()
    second = make_features(shape, setting.device, seed=11), labels.flip(0)

    def fill(data: tuple[Tensor, Tensor]) -> None:
        with torch.no_grad():
            features.copy_(data[0])
            labels.copy_(data[1])

    fill(second)
    expected = [each.clone() for each in results(step, features, labels)]
    fill(first)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        # What is compiled, loaded or allocated once must not be so during the capture.
        for _ in range(WARM_UPS):
            results(step, features, labels)
    torch.cuda.current_stream().wait_stream(aside)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        replayed = results(step, features, labels)
    captured.replay()
    before = [each.clone() for each in replayed]
    fill(second)
    captured.replay()
    same = [torch.equal(one, other) for one, other in zip(replayed, expected, strict=True)]
    moved = not torch.equal(before[0], replayed[0])
    found = {"shape": shape.as_record(), "same_bits": same, "other_data_other_loss": moved}
    lines = [f"{shape}: replayed on new data, {sum(same)} of {len(same)} results have the eager step's bits"]
    yield Findings(found, lines)
    if not (all(same) and moved):
        raise Fault("the replayed step differs from the eager one" if moved else "the replay does not see new data")

    calls: dict[str, Callable[[], object]] = {
        "replay": captured.replay,
        "eager": partial(results, step, features, labels),
    }
    clock = Clock(setting.device)
    warm = interleave(calls, lambda: None, clock, 1)
    rounds = 2 if setting.tiny else rounds_within(SECONDS_IN_TURNS, sum(map(sum, warm.values())))
    seconds = interleave(calls, lambda: None, clock, rounds)
    ratio = paired_ratio(seconds["eager"], seconds["replay"])
    lines += [f"{name}: {1e3 * statistics.median(taken):.3f} ms" for name, taken in seconds.items()]
    yield Findings({"seconds": seconds, "eager_times_replay": ratio._asdict()}, lines)


def precision(setting: Setting) -> Iterator[Findings]:
    """Training under autocast, with a gradient scaler in fp16: the loss stays finite and falls."""
    figures: dict[str, Any] = {}
    lines: list[str] = []
    faults: list[str] = []
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        try:
            found = _train(setting.device, dtype, TINY_IMAGE_SIZE if setting.tiny else IMAGE_SIZE)
        except Exception as error:  # one dtype's trouble is not the other's
            found = {"fault": one_line(error), "traceback": trace()}
        figures[name] = found
        if "fault" not in found:
            begin, end = found["losses"][:FIRST_AND_LAST], found["losses"][-FIRST_AND_LAST:]
            lines.append(f"{name}: loss {begin[0]:.3f} to {end[-1]:.3f} in {STEPS} steps, {found['skipped']} skipped")
            if found["peak_bytes"] is not None:
                lines[-1] += f", peak memory {found['peak_bytes'] / 1e6:.0f} MB"
            if not all(map(math.isfinite, found["losses"])):
                found["fault"] = "a loss is not finite"
            elif statistics.mean(end) >= statistics.mean(begin):
                found["fault"] = "the loss does not fall"
        if "fault" in found:
            faults.append(f"{name}: {found['fault']}")
        yield Findings(figures, lines)
    if faults:
        raise Fault("; ".join(faults))


def _train(device: str, dtype: torch.dtype, size: int) -> dict[str, Any]:
    """Losses of some steps of SGD of a small network on one batch, and the memory they take."""
    torch.manual_seed(0)
    backbone = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
    ).to(device)
    step = Step(64, TRAINED_CLASSES, hidden=32).to(device)
    labels = torch.arange(IMAGES) // (IMAGES // TRAINED_CLASSES)
    patterns = torch.randn(TRAINED_CLASSES, 3, size, size)
    images = (patterns[labels] + torch.randn(IMAGES, 3, size, size)).to(device)
    labels = labels.to(device)
    optimizer = torch.optim.SGD([*backbone.parameters(), *step.parameters()], LEARNING_RATE, momentum=MOMENTUM)
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    losses, skipped = [], 0
    for _ in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast(device, dtype):
            loss = step(backbone(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scale = scaler.get_scale()
        scaler.update()
        # The scale falls after a step whose gradients overflowed, which was left out.
        skipped += scaler.get_scale() < scale
        losses.append(float(loss.detach()))
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {"losses": losses, "skipped": skipped, "scale": scaler.get_scale(), "peak_bytes": peak}


def compiled(setting: Setting) -> Iterator[Findings]:
    """The step under torch.compile in one graph, without a break, gives the eager step's loss and gradients."""
    missing = None if setting.tiny else missing_compiler(setting.device)
    if missing:
        raise Skipped(missing)
    shape = setting.shape("ResNet-50", torch.float32)
    step, features, labels = _prepare(shape, setting.device)
    expected = [each.clone() for each in results(step, features, labels)]
    began = time.perf_counter()
    whole: Any = torch.compile(step, fullgraph=True, backend=setting.compiler)
    actual = results(whole, features, labels)
    setting.synchronize()
    seconds = time.perf_counter() - began
    error = max(relative_error(one, other) for one, other in zip(actual, expected, strict=True))
    found = {"shape": shape.as_record(), "backend": setting.compiler, "seconds_to_compile": seconds, "error": error}
    line = f"{shape}: fullgraph with {setting.compiler}, off by {error:.1e}; {seconds:.0f} s to compile and run once"
    yield Findings(found, [line])
    if not error <= COMPILED_TOLERANCE:
        raise Fault(f"it is off by {error:.1e}; accepted is {COMPILED_TOLERANCE:.0e}")


def ddp(setting: Setting) -> Iterator[Findings]:
    """A step under DistributedDataParallel on one rank, with descriptors gathered, gives the plain step's results."""
    if not dist.is_available():
        raise Skipped("torch was built without torch.distributed")
    backend = "nccl" if setting.device == "cuda" else "gloo"
    shape = setting.shape("ResNet-50", torch.float32)
    plain, features, labels = _prepare(shape, setting.device)
    expected = [each.clone() for each in results(plain, features, labels)]
    gathering, features, labels = _prepare(shape, setting.device, gather=True)
    if setting.device == "cuda":
        torch.cuda.set_device(0)
    # A store of this process alone: no port, no file, no network.
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(gathering, [0] if setting.device == "cuda" else None)
        actual = results(wrapped, features, labels)
        pairs = list(zip(actual, expected, strict=True))
        error = max(relative_error(one, other) for one, other in pairs)
        same = all(torch.equal(one, other) for one, other in pairs)
    finally:
        dist.destroy_process_group()
    found = {"shape": shape.as_record(), "backend": backend, "error": error, "same_bits": same}
    bits = "the same bits" if same else f"off by {error:.1e}"
    yield Findings(found, [f"{shape}: {backend}, one rank, gather=True: {bits} as without"])
    if not error <= DDP_TOLERANCE:
        raise Fault(f"it is off by {error:.1e}; accepted is {DDP_TOLERANCE:.0e}")
