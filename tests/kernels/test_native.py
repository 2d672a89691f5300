"""The compiled host kernels: every instruction set against float64, same bits on any number of threads, sanitizers."""

from __future__ import annotations

import gc
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from iir_fast import backend, functional
from iir_fast.kernels import native
from iir_fast.kernels.native.memory import Memory
from iir_fast.kernels.subgroup_similarity import native as similarity

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("g++") or shutil.which("c++")
pytestmark = pytest.mark.native
needs_kernels = pytest.mark.skipif(not native.all_kernels(), reason="installed without a C++ compiler")

LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.fixture(params=native.all_kernels(), ids=lambda found: found.name)
def instruction_set(request, monkeypatch):
    monkeypatch.setattr(native, "kernels", lambda: request.param)


@pytest.fixture
def without_kernels(monkeypatch):
    monkeypatch.setattr(native, "kernels", lambda: None)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def features_of(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> Tensor:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)
    return features.contiguous(memory_format=LAYOUTS[layout])


def error(actual: Tensor, expected: Tensor) -> float:
    expected = expected.detach()
    return float((actual.detach().double() - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


@needs_kernels
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (3, 5, 5, 9), (2, 40, 7, 7), (2, 129, 14, 14), (1, 700, 28, 28)], ids=str
)
def test_sums_and_products_agree_with_float64(instruction_set, shape, dtype, layout):
    features = features_of(shape, dtype, layout)
    batch, channels, height, width = shape
    pixels = height * width
    # Errors are relative to a sum, which now and then is next to nothing in the smallest shape.
    torch.manual_seed(0)
    per_channel, per_pixel = torch.randn(batch, 2, channels), torch.randn(batch, 2, pixels)
    one, added = torch.rand(1, 1, pixels), torch.randn(batch, channels)
    exact = features.flatten(2).double()
    over_channels, over_pixels, _ = native.sums(features, per_channel, one)
    assert error(over_channels, torch.einsum("bnc,bcp->bnp", per_channel.double(), exact)) <= 2e-6
    assert error(over_pixels, torch.einsum("np,bcp->bnc", one[0].double(), exact)) <= 2e-6
    _, over_pixels, _ = native.sums(features, None, torch.cat((per_pixel, -per_pixel), 1))
    expected = torch.einsum("bnp,bcp->bnc", per_pixel.double(), exact)
    assert error(over_pixels, torch.cat((expected, -expected), 1)) <= 2e-6
    _, _, squares = native.sums(features, per_channel[:, :1], None, squares=True)
    assert error(squares, exact.square().sum(1)) <= 2e-6
    gradient = native.products(features, per_channel, per_pixel, added)
    assert (gradient.shape, gradient.dtype, gradient.stride()) == (features.shape, dtype, features.stride())
    product = torch.einsum("bnc,bnp->bcp", per_channel.double(), per_pixel.double()) + added.double().unsqueeze(2)
    assert error(gradient.flatten(2), product) <= max(2e-6, torch.finfo(dtype).eps)


@needs_kernels
def test_bfloat16_is_rounded_as_torch_rounds_it(instruction_set):
    """To the bit: ties, largest and smallest numbers, and subnormal ones, which one instruction takes for zero."""
    words = torch.randint(-(2**31), 2**31, (64, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    words[:, 0] &= -0x10000
    words[:, 1] = words[:, 1] & -0x10000 | 0x8000  # halfway between two bfloat16
    words[0, 2], words[1, 2] = words[0, 2] & 0x807FFFFF - 2**32, 0  # subnormal; zero
    values = words.view(torch.float32)
    like = torch.empty(64, 1, 16, 16, dtype=torch.bfloat16)
    found = native.products(like, torch.ones(64, 1, 1), values.reshape(64, 1, 256), torch.zeros(64, 1)).squeeze(1)
    expected = (values + 0.0).to(torch.bfloat16)
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(7.0).view(torch.int16), expected.nan_to_num(7.0).view(torch.int16))
    assert (expected[0, 2] != 0).any()


@needs_kernels
def test_every_operator_agrees_with_the_reference(case, shape, instruction_set):
    tensors = case.make(shape, torch.float32)
    assert_agrees(case, shape, tensors, 1e-5)


def assert_agrees(case, shape: tuple[int, ...], tensors: list[Tensor], tolerance: float) -> None:
    expected = case.run_with_gradients([tensor.double() for tensor in tensors], shape, "reference")
    scales = case.smallest_scales(tensors, shape)
    for actual, exact, scale in zip(case.run_with_gradients(tensors, shape), expected, scales, strict=True):
        scale = exact.abs().max().clamp(min=max(scale, 1e-30))
        assert float((actual.double() - exact).abs().max() / scale) <= tolerance


@needs_kernels
@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_bits_on_any_number_of_threads(layout, threads):
    # Large enough to be shared among threads, and for its gradient to lie in memory that is used again.
    features = features_of((6, 512, 28, 28), torch.float32, layout).requires_grad_()
    weights, labels = torch.randn(2, 5, 512).requires_grad_(), torch.arange(6) % 5
    masks = torch.rand(6, 2, 28, 28).requires_grad_()
    groups = torch.arange(12) % 3

    def results() -> list[Tensor]:
        cams, pooled = functional.label_cam(features, weights, labels)
        descriptors = functional.masked_pool(features, masks)
        similarity = functional.subgroup_similarity(*(each.flatten(0, 1) for each in descriptors), groups)
        outs = [cams, pooled, *descriptors, similarity, *functional.regulate(*cams.unbind(1))]
        loss = sum((out.square().sum() for out in outs), start=torch.zeros(()))
        return [*outs, *torch.autograd.grad(loss, (features, weights, masks))]

    threads(1)
    expected = results()
    for count in (2, 3, 8):
        threads(count)
        assert all(map(torch.equal, results(), expected))


@needs_kernels
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nan_stays_where_it_is(layout):
    features = features_of((2, 9, 7, 7), torch.float32, layout)
    features[1, 4, 3, 3] = torch.nan
    over_channels, _, _ = native.sums(features, torch.ones(2, 1, 9), None)
    _, over_pixels, _ = native.sums(features, None, torch.ones(2, 1, 49))
    assert over_channels.isnan().nonzero().tolist() == [[1, 0, 3 * 7 + 3]]
    assert over_pixels.isnan().nonzero().tolist() == [[1, 0, 4]]


@needs_kernels
def test_what_the_kernels_take():
    features = features_of((2, 8, 6, 6), torch.float32, "NCHW")
    assert native.supports(features)
    assert native.supports(features[:, :, :, :].contiguous(memory_format=torch.channels_last))
    assert native.supports(features.bfloat16(), torch.ones(1))
    for refused in (features.half(), features.double(), features[:, :, ::2], features[:, ::2], features[:0]):
        assert not native.supports(refused)
    assert not native.supports(features, torch.ones(1, dtype=torch.float64))
    with pytest.raises(ValueError, match="5 and 0 sums were asked for"):
        native.sums(features, None, torch.ones(2, 5, 36))
    with pytest.raises(ValueError, match="5 products were asked for"):
        native.products(features, torch.ones(2, 5, 8), torch.ones(2, 5, 36), torch.ones(2, 8))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 8e-3)])
def test_without_the_kernels_the_closed_form_on_aten_agrees(case, shape, dtype, tolerance, without_kernels):
    if case.operator not in ("subgroup_similarity", "inter_intra"):
        pytest.skip("it is the reference that runs where nothing is compiled")
    assert_agrees(case, shape, case.make(shape, dtype), tolerance)


@pytest.mark.parametrize(("dtype", "compiled"), [(torch.float32, True), (torch.float32, False), (torch.float64, True)])
def test_what_the_kernels_do_not_take_is_the_reference_s(case, dtype, compiled, monkeypatch):
    """To the bit."""
    if case.operator in ("subgroup_similarity", "inter_intra"):
        pytest.skip("has a closed form on ATen for it")
    if not compiled:
        monkeypatch.setattr(native, "kernels", lambda: None)
    if compiled and not native.all_kernels():
        pytest.skip("installed without a C++ compiler")
    size = (3, 4, 3, 5)
    tensors = case.make(size, dtype)
    with _Called() as called:
        found = case.run_with_gradients(tensors, size)
    taken = compiled and dtype == torch.float32 and case.name != "masked_pool-three_masks"
    assert bool(called.names) == taken
    same = map(torch.equal, found, case.run_with_gradients(tensors, size, "reference"))
    assert taken or all(same)


class _Called(TorchDispatchMode):
    """Names of the operators of iir_fast that are called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "iir_fast":
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@needs_kernels
def test_a_backward_pass_on_other_kernels_than_the_forward_pass_is_refused():
    features, masks = torch.ones(1, 2, 2, 2, dtype=torch.float64), torch.ones(1, 1, 2, 2, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="backend is 'native', which does not take these tensors"):
        torch.ops.iir_fast.masked_pool(features, masks)


@needs_kernels
@pytest.mark.parametrize(("size", "compiled"), [(1, True), (97, True), (98, False), (300, False)])
def test_large_groups_are_left_to_aten(size, compiled, monkeypatch):
    calls, run = [], similarity._run
    monkeypatch.setattr(similarity, "_run", lambda *arguments, **named: calls.append(1) or run(*arguments, **named))
    foreground, background = torch.randn(2, 4 * size, 8).unbind()
    groups = torch.arange(4 * size) // size
    loss = functional.subgroup_similarity(foreground.requires_grad_(), background, groups)
    (found,) = torch.autograd.grad(loss, foreground)
    assert len(calls) == (2 if compiled else 0)
    with backend("reference"):
        leaf = foreground.detach().double().requires_grad_()
        exact = functional.subgroup_similarity(leaf, background.double(), groups)
    assert error(loss, exact) <= 1e-5
    assert error(found, torch.autograd.grad(exact, leaf)[0]) <= 1e-5


def test_memory_is_used_again_and_never_while_it_is_in_use():
    memory, like = Memory(), torch.empty(3, 2**20).t()
    first = memory.empty_like(like)
    assert (first.shape, first.stride(), first.dtype) == (like.shape, like.stride(), like.dtype)
    address = first.data_ptr()
    assert address % 2**21 == 0
    kept = first[:2].fill_(7)
    second = memory.empty_like(like).zero_()
    assert second.data_ptr() != address
    del first
    third = memory.empty_like(like).zero_()
    assert third.data_ptr() != address
    assert torch.equal(kept, torch.full_like(kept, 7))
    del kept
    assert memory.empty_like(like).data_ptr() == address


def test_memory_is_let_go_of_when_other_sizes_are_asked_for():
    memory = Memory()
    several = [memory.empty_like(torch.empty(2**20)) for _ in range(3)]
    # In whichever thread the last reference goes.
    thread = threading.Thread(target=several.clear)
    thread.start()
    thread.join()
    gc.collect()
    assert memory.held >= 3 * 2**22
    larger = memory.empty_like(torch.empty(2**22))
    assert memory.held == 0
    assert larger.fill_(1).sum() == 2**22


def test_a_gradient_outlives_everything_else():
    features = torch.randn(4, 512, 28, 28, requires_grad=True)
    functional.masked_pool(features, torch.rand(4, 2, 28, 28)).foreground.sum().backward()
    before = features.grad.clone()
    for _ in range(3):
        other = torch.randn(4, 512, 28, 28, requires_grad=True)
        functional.masked_pool(other, torch.rand(4, 2, 28, 28)).foreground.sum().backward()
    assert torch.equal(features.grad, before)


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
def test_the_sanitizers_find_nothing(tmp_path):
    sources = [Path(__file__).with_name("check_native.cpp"), *sorted((ROOT / "kernels" / "native").glob("*.cpp"))]
    command = [COMPILER, "-std=c++17", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    # Not optimized and side by side: compiling takes a hundred times as long as running.
    options = ["-O0", "-g", "-c", f"-I{ROOT / 'kernels' / 'native'}"]
    compilers = [subprocess.Popen([*command, *options, str(source)], cwd=tmp_path) for source in sources]
    assert [compiler.wait() for compiler in compilers] == [0] * len(sources)
    objects = [f"{source.stem}.o" for source in sources]
    subprocess.run([*command, "-o", "check", *objects, "-lpthread"], cwd=tmp_path, check=True)
    result = subprocess.run([str(tmp_path / "check")], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert result.stdout.rstrip().endswith(" 0 faults")
