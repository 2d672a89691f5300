"""A training step on the device: against the float64 reference, under autocast, compiled, twice, and in the loop."""

from __future__ import annotations

import pytest
import torch

from iir_fast import backend
from iir_fast.app.doctor import examine
from iir_fast.kernels import selection
from iir_fast.training import TrainConfig, train


def assert_close(actual: list[torch.Tensor], expected: list[torch.Tensor], tolerance: float) -> None:
    for position, (one, other) in enumerate(zip(actual, expected, strict=True)):
        error = (one.double() - other.double()).abs().max() / other.double().abs().max()
        assert error <= tolerance, f"position {position}"


def test_the_kernels_under_test_are_chosen_there(device, implementation):
    assert selection.choose(device).backend == implementation


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-11), (torch.float32, 1e-4), (torch.bfloat16, 2**-7), (torch.float16, 2**-10)],
    ids=str,
)
def test_a_step_agrees_with_the_float64_reference(dtype, tolerance, layout, make_step, implementation):
    step, exact = make_step(dtype=dtype, layout=layout), make_step(dtype=torch.float64)
    with torch.no_grad():
        exact.features.copy_(step.features)
    with backend("reference"):
        expected = exact.run()
    found = step.run()
    assert found[1].dtype == dtype
    # The reference, which takes what the native implementations do not, leaves the layout to autograd.
    if implementation == "triton" or dtype in (torch.float32, torch.bfloat16):
        assert found[1].stride() == step.features.stride()
    assert_close(found, expected, tolerance)


def test_the_same_bits_twice(make_step):
    first, second = make_step().run(), make_step().run()
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_leaves_the_operators_in_float32(dtype, make_step, device):
    step = make_step()
    expected = step.run()
    with torch.autocast(device, dtype):
        loss = step.loss()
    assert loss.dtype == torch.float32
    # The logits are in the low precision, as is their gradient of the weights.
    found = [loss.detach(), *torch.autograd.grad(loss, [step.features, *step.head.parameters()])]
    assert_close(found, expected, 0.02)


def test_a_step_compiles_into_one_graph(make_step, device):
    torch._dynamo.reset()
    step = make_step()
    # On the CPU inductor needs a C++ compiler and a minute.
    compiled = torch.compile(step.loss, fullgraph=True, backend="inductor" if device == "cuda" else "aot_eager")
    loss = compiled()
    found = [loss.detach(), *torch.autograd.grad(loss, [step.features, *step.head.parameters()])]
    assert_close(found, step.run(), 1e-4)


@pytest.mark.gpu
def test_the_doctor_finds_no_fault(device):
    assert [check for check in examine(torch.device(device)) if check.fault] == []


@pytest.mark.parametrize("precision", ["fp32", "bf16", pytest.param("fp16", marks=pytest.mark.gpu)])
def test_the_training_loop_runs(precision, device, tmp_path):
    sizes = {"train_images": 80, "test_images": 20, "classes_per_batch": 4, "images_per_class": 4, "hidden": 8}
    config = TrainConfig().with_options(**sizes, epochs=1, precision=precision, device=device, channels_last=True)
    weights = train(config, tmp_path / "run").model.state_dict()
    assert all(weight.isfinite().all() for weight in weights.values() if weight.is_floating_point())
    assert all(weight.device.type == device for weight in weights.values())
