"""What only a GPU has: further devices, streams, graphs, and a host that need not wait."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.gpu


def test_tensors_on_a_gpu_that_is_not_the_current_one(make_step):
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU here; this takes two")
    expected, found = make_step("cuda:0").run(), make_step("cuda:1").run()
    assert torch.cuda.current_device() == 0
    assert all(each.device == torch.device("cuda:1") for each in found)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.to(other.device), other, rtol=1e-4, atol=1e-5)


def test_a_step_does_not_wait_for_the_device(make_step):
    step = make_step()
    step.run()  # compiles the kernels and loads them
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_step_stays_on_the_current_stream(make_step):
    step, expected = make_step(), make_step(seed=1).run()
    values, stream = make_step(seed=1), torch.cuda.Stream()
    step.run()  # compiles
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # cycles: long enough for a kernel on another stream to be early
        with torch.no_grad():
            step.features.copy_(values.features)
            for one, other in zip(step.head.parameters(), values.head.parameters(), strict=True):
                one.copy_(other)
        found = step.run()
    stream.synchronize()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_step_is_captured_in_a_graph_and_replayed_on_other_features(make_step):
    step, others = make_step(), make_step(seed=1).features
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # compiles, and lets libraries allocate what they need
            step.run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step.run()
    with torch.no_grad():
        step.features.copy_(others)
        step.labels.fill_(3)
    graph.replay()
    assert all(map(torch.equal, captured, step.run()))
