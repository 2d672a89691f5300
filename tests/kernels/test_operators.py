"""What holds for every operator: parity with the oracle, gradients, layouts, dtypes, compilation, same bits."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iir_fast.kernels import backend

CLOSED_FORM = ("subgroup_similarity", "inter_intra")
"""What the native implementations run on ATen where they are not compiled, in every dtype."""


def relative_error(actual: Tensor, expected: Tensor, smallest_scale: float = 1e-30) -> float:
    """Largest deviation over the largest magnitude of what is expected."""
    if expected.numel() == 0:
        return 0.0
    expected = expected.double()
    scale = expected.abs().max().clamp(min=smallest_scale)
    return float((actual.double() - expected).abs().max() / scale)


def assert_close(
    actual: list[Tensor], expected: list[Tensor], tolerance: float, smallest_scales: list[float] | None = None
) -> None:
    assert len(actual) == len(expected)
    scales = smallest_scales or [0.0] * len(expected)
    for position, (one, other, scale) in enumerate(zip(actual, expected, scales, strict=True)):
        assert one.shape == other.shape, position
        assert relative_error(one, other, max(scale, 1e-30)) <= tolerance, f"result or gradient {position}"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_agrees_with_the_float64_reference(case, shape, dtype, tolerance, implementation):
    if (implementation, dtype) == ("native", torch.float64) and case.operator not in CLOSED_FORM:
        pytest.skip("it is the reference that takes float64")
    tensors = case.make(shape, dtype)
    expected = case.run_with_gradients([tensor.double() for tensor in tensors], shape, "reference")
    assert_close(case.run_with_gradients(tensors, shape), expected, tolerance, case.smallest_scales(tensors, shape))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_upcast_and_only_gradients_are_rounded(case, dtype, each_backend, implementation):
    shape = (5 if implementation == "native" else 2, 33, 14, 14)
    tensors = case.make(shape, dtype)
    results = case.run_with_gradients(tensors, shape, each_backend)
    expected = case.run_with_gradients([tensor.double() for tensor in tensors], shape, "reference")
    outputs = len(results) - (len(tensors) if case.differentiable else 0)
    assert all(result.dtype == torch.float32 for result in results[:outputs])
    assert all(result.dtype == dtype for result in results[outputs:])
    assert_close(results[:outputs], expected[:outputs], 1e-5)
    assert_close(results[outputs:], expected[outputs:], torch.finfo(dtype).eps)


def test_one_argument_in_float64_makes_results_and_sums_float64(case, each_backend):
    """Thresholds and offsets decide nothing; dual_cam has a test of its own."""
    shape = (3, 17, 7, 7)
    tensors = case.make(shape, torch.float32)
    expected = case.run([tensor.double() for tensor in tensors], shape, "reference")
    for wide in range({"inter_intra": 3, "dual_cam": 0}.get(case.operator, 2)):
        given = [tensor.double() if number == wide else tensor for number, tensor in enumerate(tensors)]
        found = case.run(given, shape, each_backend)
        assert all(result.dtype == torch.float64 for result in found)
        assert_close(found, expected, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_no_worse_than_plain_torch_in_the_same_dtype(case, dtype, layout):
    """At most twice its error, and one rounding."""
    shape = (3, 17, 7, 7)
    tensors = [lay_out(tensor, layout) for tensor in case.make(shape, dtype)]
    expected = case.run_with_gradients([tensor.double() for tensor in tensors], shape, "reference")
    plain = case.run_with_gradients(tensors, shape, "reference")
    for actual, other, exact in zip(case.run_with_gradients(tensors, shape), plain, expected, strict=True):
        eps = torch.finfo(actual.dtype).eps
        assert relative_error(actual, exact) <= 2 * relative_error(other, exact) + eps


def test_every_element_is_written(case, shape):
    """Uninitialized memory is NaN here, and nothing of it is left in a result."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.utils.deterministic.fill_uninitialized_memory
        assert torch.empty(3).isnan().all()
        results = case.run_with_gradients(case.make(shape, torch.float32), shape)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(result.isfinite().all() for result in results)


def lay_out(tensor: Tensor, layout: str) -> Tensor:
    """The same values under other strides."""
    if layout == "sliced":
        wide = torch.stack((tensor, torch.full_like(tensor, torch.nan)), dim=-1).flatten(-2)
        return wide[..., ::2]
    if layout == "transposed":
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "transposed"])
def test_strides_do_not_matter(case, layout, widest):
    shape = (4, 6, 5, 9)
    dtype, tolerance = widest
    tensors = case.make(shape, dtype)
    expected = case.run_with_gradients([tensor.double() for tensor in tensors], shape, "reference")
    laid_out = [lay_out(tensor, layout) for tensor in tensors]
    assert_close(case.run_with_gradients(laid_out, shape), expected, tolerance)


def test_expanded_inputs(case, widest):
    shape = (4, 6, 5, 9)
    dtype, tolerance = widest
    tensors = [tensor[:1].expand(tensor.shape) for tensor in case.make(shape, dtype)]
    expected = case.run_with_gradients([tensor.double() for tensor in tensors], shape, "reference")
    assert_close(case.run_with_gradients(tensors, shape), expected, tolerance)


def test_expanded_gradients(differentiable, implementation, widest):
    """`loss.sum()` hands a gradient of stride 0 to the operator."""
    shape = (2, 3, 4, 5)
    dtype, tolerance = widest
    grads = []
    for name in (implementation, "reference"):
        made = differentiable.make(shape, dtype)
        leaves = [(each.double() if name == "reference" else each).requires_grad_() for each in made]
        with backend(name):
            for out in differentiable.run(leaves, shape, name):
                out.square().sum().backward(retain_graph=True)
                out.sum().backward(retain_graph=True)
        grads.append([leaf.grad for leaf in leaves])
    assert_close(grads[0], grads[1], tolerance)


def test_channels_last_features_get_a_channels_last_gradient(differentiable):
    shape = (4, 6, 5, 9)
    tensors = [lay_out(tensor, "channels_last") for tensor in differentiable.make(shape, torch.float32)]
    leaves = [tensor.requires_grad_() for tensor in tensors]
    outs = differentiable.run(leaves, shape)
    if leaves[0].dim() != 4:
        pytest.skip("no feature map among the arguments")
    (gradient,) = torch.autograd.grad(sum(out.sum() for out in outs), leaves[:1])
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.native
@pytest.mark.parametrize("size", [(3, 5, 4, 3), (2, 3, 1, 1)], ids=str)
def test_gradcheck(differentiable, size):
    """Of the reference, with whose gradients those of all implementations agree."""
    leaves = [tensor.requires_grad_() for tensor in differentiable.make(size, torch.float64)]
    for name in ("native", "reference") if differentiable.operator in CLOSED_FORM else ("reference",):
        with backend(name):
            assert torch.autograd.gradcheck(lambda *args: tuple(differentiable.run(list(args), size)), leaves)


class _Arguments(TorchDispatchMode):
    """Keeps what the first operator of iir_fast that is called inside is given."""

    found: tuple[object, ...] = ()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "iir_fast" and not self.found:
            self.found = args
        return func(*args, **(kwargs or {}))


def skip_unless_registered(case, implementation: str) -> None:
    if (implementation, case.name) == ("native", "masked_pool-three_masks"):
        pytest.skip("the native implementation takes two masks, the reference more")


def test_opcheck(case, implementation):
    skip_unless_registered(case, implementation)
    size = (3, 4, 3, 5)
    tensors = [tensor.requires_grad_(case.differentiable) for tensor in case.make(size, torch.float32)]
    with _Arguments() as arguments:
        case.run(tensors, size)
    given = [each for each in arguments.found if isinstance(each, Tensor)]
    assert sum(each.requires_grad for each in given) == case.differentiable * len(tensors)
    torch.library.opcheck(getattr(torch.ops.iir_fast, case.operator).default, arguments.found)


def test_compiles_into_one_graph(case):
    torch._dynamo.reset()
    size = (3, 4, 3, 5)
    tensors = case.make(size, torch.float32)
    compiled = torch.compile(case.call, fullgraph=True, backend="aot_eager")
    expected = case.run_with_gradients(tensors, size)
    leaves = [tensor.requires_grad_(case.differentiable) for tensor in tensors]
    outs = compiled(*leaves, *case.extra(size))
    outs = tree_leaves(outs)
    assert_close([out.detach() for out in outs], expected[: len(outs)], 1e-6)
    if case.differentiable:
        assert_close(list(torch.autograd.grad(outs, leaves, case.weights(outs))), expected[len(outs) :], 1e-5)


def test_autocast_does_not_lower_the_operators(case, each_backend, device):
    size = (3, 17, 7, 7)
    tensors = case.make(size, torch.float32)
    expected = case.run_with_gradients(tensors, size, "reference")
    results = case.run_with_gradients(tensors, size, each_backend, torch.autocast(device, dtype=torch.bfloat16))
    outputs = len(expected) - (len(tensors) if case.differentiable else 0)
    # dual_cam's logits are those of a linear layer, which autocast lowers, and nothing else of it.
    logits = int(case.operator == "dual_cam")
    assert all(result.dtype == torch.bfloat16 for result in results[:logits])
    assert all(result.dtype == torch.float32 for result in results[logits:])
    assert_close(results[:logits], expected[:logits], 1e-2)
    assert_close(results[logits:outputs], expected[logits:outputs], 1e-5)
    assert_close(results[outputs:], expected[outputs:], 1e-2 if logits else 1e-5)


def test_same_bits_on_every_run(case, implementation):
    size = (64 if implementation == "native" else 3, 33, 14, 14)
    tensors = case.make(size, torch.float32)
    first, second = (case.run_with_gradients(tensors, size) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize(("forward", "backward"), [("native", None), (None, "native")], ids=["first", "last"])
def test_backward_goes_on_from_what_another_backend_kept(differentiable, implementation, forward, backward):
    """As where a backend is forced around the forward pass alone."""
    if implementation == "native":
        pytest.skip("compares the native implementations with others")
    size = (4, 6, 5, 9)
    tensors = differentiable.make(size, torch.float32)
    expected = differentiable.run_with_gradients([tensor.double() for tensor in tensors], size, "reference")
    leaves = [tensor.requires_grad_() for tensor in tensors]
    outs = differentiable.run(leaves, size, forward)
    with backend(backward) if backward else nullcontext():
        gradients = torch.autograd.grad(outs, leaves, differentiable.weights(outs))
    assert_close([*(out.detach() for out in outs), *gradients], expected, 1e-5)


def test_a_second_derivative_is_refused(differentiable, implementation):
    skip_unless_registered(differentiable, implementation)
    size = (3, 4, 3, 5)
    leaves = [tensor.requires_grad_() for tensor in differentiable.make(size, torch.float32)]
    out = sum(out.square().sum() for out in differentiable.run(leaves, size))
    (gradient, *_) = torch.autograd.grad(out, leaves, create_graph=True)
    with pytest.raises(NotImplementedError, match="not differentiable twice"):
        gradient.sum().backward()


def test_an_empty_batch_gives_empty_results(case):
    size = (0, 4, 3, 5)
    expected = case.run_with_gradients(case.make(size, torch.float32), size, "reference")
    actual = case.run_with_gradients(case.make(size, torch.float32), size)
    assert [out.shape for out in actual] == [out.shape for out in expected]
    assert all(bool((one == other).all()) for one, other in zip(actual, expected, strict=True))


def test_nan_stays_in_its_sample(case, widest):
    size = (4, 6, 5, 9)
    if case.operator in ("subgroup_similarity", "inter_intra"):
        pytest.skip("couples samples by definition; see its own test file")
    clean = case.make(size, widest[0])
    dirty = [tensor.clone() for tensor in clean]
    dirty[0][1].flatten()[3] = torch.nan
    outputs = len(case.run(clean, size))
    before, after = case.run_with_gradients(clean, size), case.run_with_gradients(dirty, size)
    others = [0, 2, 3]
    for position, (one, other) in enumerate(zip(before, after, strict=True)):
        if case.operator == "dual_cam" and position == 0:
            # Logits are [2,B,K].
            assert torch.equal(one[:, others], other[:, others])
        elif case.operator == "dual_cam" and position >= outputs and len(one) != len(clean[0]):
            # Gradients of parameters are products with all samples.
            continue
        elif case.operator == "label_cam" and position == outputs + 1:
            # The weights' gradient belongs to classes; only the class of sample 1 may be touched.
            touched = int(case.extra(size)[0][1])
            keep = torch.arange(one.shape[1]) != touched
            assert torch.equal(one[:, keep], other[:, keep])
        else:
            assert torch.equal(one[others], other[others]), position
    assert any(bool(other.isnan().any()) for other in after)
