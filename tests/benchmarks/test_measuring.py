"""Time in turns, memory, growth."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from types import ModuleType

import pytest
import torch

from benchmarks import machine
from benchmarks.clock import Clock, interleave, paired_ratio, rounds_within
from benchmarks.scaling import CONTENDERS, Curve, Point, growth_exponent, measure, similarity_against_descriptors
from benchmarks.share import LOSSES
from benchmarks.share import measure as measure_share
from iir_fast import DualCAMHead
from iir_fast.models import create_backbone


def test_contenders_take_turns_and_back():
    called: list[str] = []
    calls = {name: partial(called.append, name) for name in "ab"}
    seconds = interleave(calls, partial(called.append, "-"), Clock("cpu"), rounds=3)
    assert "".join(called) == "-a-b-b-a-a-b-"
    assert all(len(each) == 3 and min(each) >= 0 for each in seconds.values())


def test_ratios_are_of_paired_rounds():
    ratio = paired_ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0])
    assert (ratio.median, ratio.first_quartile, ratio.third_quartile, ratio.rounds) == (3.0, 2.5, 3.5, 3)
    assert paired_ratio([2.0], [1.0]) == (2.0, 2.0, 2.0, 1)


@pytest.mark.parametrize(("seconds", "rounds"), [(100.0, 7), (1.0, 10), (1e-6, 30)])
def test_rounds_fill_the_budget_within_limits(seconds, rounds):
    assert rounds_within(10.0, seconds) == rounds


def one_after_the_other() -> None:
    torch.ones(1 << 24).sum()
    torch.ones(1 << 22).sum()


def extra_of_the_larger() -> int | None:
    one_after_the_other()
    return machine.extra_peak_bytes(one_after_the_other, "cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="the resident set is reset on Linux only")
def test_extra_memory_is_the_peak_and_not_what_stays():
    # In a process of its own: where earlier tests left large holes in the C library's heap, it keeps the first tensor.
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        assert process.submit(extra_of_the_larger).result() == pytest.approx(1 << 26, rel=0.1)


def test_the_floor_copies_features_and_multiplies_what_classifiers_do(monkeypatch):
    features, weights = torch.zeros(2, 4, 3, 3, dtype=torch.bfloat16), torch.zeros(2, 5, 4)
    made: list[tuple[int, ...]] = []
    bmm = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: made.append(tuple(bmm(a, b).shape)))
    calls = machine.floor_calls(features, weights)
    copied = calls["copy"]()
    assert (copied.nbytes, copied.dtype) == (features.nbytes, features.dtype)
    calls["products"]()
    # Logits [2,B,K], and the gradients of the pooled maps [2,B,C] and of the weights [2,K,C].
    assert made == [(2, 2, 5), (2, 2, 4), (2, 5, 4)]


@pytest.fixture
def gpu(monkeypatch):
    """A GPU as far as its name goes."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Made-up GPU")


def test_without_nvidia_ml_py_a_gpu_s_clocks_are_missing(gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    state = machine.gpu_state()
    assert state["missing"] == "nvidia-ml-py is not installed"
    assert state["name"] == "Made-up GPU"
    assert [state[name] for name in machine.GPU_STATE] == [None] * 4


def test_a_driver_that_keeps_silent_is_no_error(gpu, monkeypatch):
    class NVMLError(Exception):
        pass

    def refuse() -> None:
        raise NVMLError("Driver Not Loaded")

    library = ModuleType("pynvml")
    library.NVMLError, library.nvmlInit = NVMLError, refuse
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert machine.gpu_state()["missing"] == "the driver says: Driver Not Loaded"


def test_the_exponent_of_a_power_is_found():
    sizes = [10, 20, 40, 80]
    assert growth_exponent(sizes, [3e-4 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert growth_exponent([10], [1.0]) is None


def test_small_sizes_do_not_flatten_the_exponent():
    points = [Point(2**power, max(1e-3, 1e-6 * 4.0**power), None) for power in range(12)]
    exponents = Curve("curve", "package", points).exponents()
    assert exponents["time"] == pytest.approx(2.0)
    assert exponents["memory"] is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_a_peer_that_runs_out_of_memory_ends_its_curve_and_nothing_else():
    maker = partial(similarity_against_descriptors, channels=64)
    curves = {each: measure("curve", each, maker, (64, 4096), "cpu", budget=1 << 30) for each in CONTENDERS}
    assert [len(curves[each].points) for each in CONTENDERS] == [2, 1, 2]
    assert curves["naive"].out_of_memory_at == 4096
    assert curves["package"].out_of_memory_at is None


def _failing(size: int, device: str) -> None:
    raise KeyError("nothing to do with memory")


@pytest.mark.slow
def test_what_is_not_for_want_of_memory_is_raised():
    with pytest.raises(RuntimeError, match="nothing to do with memory"):
        measure("curve", "package", _failing, (1,), "cpu", budget=1 << 30)


def test_the_shares_of_a_step_are_of_both_losses():
    backbone = create_backbone("small_cnn")
    head = DualCAMHead(backbone.channels, 4, hidden=None, threshold="mean", class_mean=1.0)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 0, 1, 1])
    shares = measure_share(backbone, head, images, labels, rounds=1)
    assert shares.keys() == LOSSES.keys()
    assert all(part > 0 for share in shares.values() for part in share)
    # The cut graph still reaches the backbone and the head.
    assert all(each.grad is not None for each in (*backbone.parameters(), *head.parameters()))
