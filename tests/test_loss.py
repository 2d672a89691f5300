"""IIRLoss: parity with the oracle end to end, the drop-in loop, class maps, degenerate batches, errors."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F

from iir_fast import DualCAMHead, IIRLoss, backend
from iir_fast.functional import iir_loss, masked_pool, regulate

LABELS = torch.tensor([0, 1, 0, 2, 1, 0])


def make_batch(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    cam_a, cam_b = torch.randn(2, 6, 5, 7, generator=generator, dtype=torch.float64).to(dtype)
    features = torch.randn(6, 9, 5, 7, generator=generator, dtype=torch.float64).to(dtype)
    return cam_a, cam_b, features


@pytest.mark.parametrize("regulation", ["dual", "agreement"])
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float32, 1e-4, 1e-7), (torch.float64, 1e-12, 1e-15)])
def test_agrees_with_the_reference_on_the_loss_and_all_gradients(regulation, dtype, rtol, atol, implementation):
    results = []
    for name in (implementation, "reference"):
        leaves = [tensor.requires_grad_() for tensor in make_batch(dtype)]
        with backend(name):
            terms = iir_loss(*leaves, LABELS, regulation=regulation)
            results.append([terms.loss.detach(), *torch.autograd.grad(terms.loss, leaves)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def test_weights_scale_the_two_terms():
    terms = iir_loss(*make_batch(), LABELS, intra_weight=2.0, inter_weight=0.5)
    torch.testing.assert_close(terms.loss, 2.0 * terms.intra + 0.5 * terms.inter)
    torch.testing.assert_close(IIRLoss(2.0, 0.5)(*make_batch(), LABELS), terms.loss)


@pytest.mark.parametrize(("regulation", "column"), [("dual", 0), ("agreement", 1)])
def test_says_what_it_is_made_of(regulation, column):
    cam_a, cam_b, features = make_batch()
    regulated = regulate(cam_a, cam_b)
    terms = iir_loss(cam_a, cam_b, features, LABELS, regulation=regulation)
    torch.testing.assert_close(terms.intra, regulated.terms[:, column].mean())
    for name in ("masks", "maps", "thresholds"):
        assert torch.equal(getattr(terms, name), getattr(regulated, name))
    for found, expected in zip(terms.descriptors, masked_pool(features, regulated.masks), strict=True):
        assert torch.equal(found, expected)


def test_the_defaults_of_the_function_are_those_of_the_module():
    assert repr(IIRLoss()) == (
        "IIRLoss(intra_weight=5.0, inter_weight=5.0, regulation='dual', temperature=0.1, gather=False)"
    )
    of_module = inspect.signature(IIRLoss).parameters
    of_function = inspect.signature(iir_loss).parameters
    assert {name: each.default for name, each in of_module.items()} == {
        name: of_function[name].default for name in of_module
    }


def test_with_gather_it_is_the_loss_of_all_ranks_rows(monkeypatch):
    """As if another rank held the other half; `test_gather.py` asks real ones."""
    cam_a, cam_b, features = make_batch()
    whole = iir_loss(cam_a, cam_b, features, LABELS)
    rest = iter([*(each[3:] for each in whole.descriptors), LABELS[3:]])
    monkeypatch.setattr("iir_fast.loss.gather_rows", lambda rows: torch.cat((rows, next(rest))))
    half = IIRLoss(gather=True).terms(cam_a[:3], cam_b[:3], features[:3], LABELS[:3])
    torch.testing.assert_close(half.inter, whole.inter)
    for found, expected in zip(half.descriptors, whole.descriptors, strict=True):
        assert torch.equal(found, expected[:3])


@pytest.mark.parametrize("labels", [LABELS, torch.arange(6)], ids=["subgroups", "every image alone"])
def test_inter_is_the_mean_over_pairs_of_both_classifiers_written_out(labels):
    cam_a, cam_b, features = make_batch()
    terms = iir_loss(cam_a, cam_b, features, labels)
    f, g = [], []
    for i in range(6):
        for x in range(2):
            mask = terms.masks[i, x]
            f.append(F.normalize((mask * features[i]).sum((1, 2)) / (mask.sum() + 1e-6), dim=0))
            g.append(F.normalize(((1 - mask) * features[i]).sum((1, 2)) / ((1 - mask).sum() + 1e-6), dim=0))
    shared = sum(g) / 12
    g = [F.normalize(each + shared, dim=0) for each in g]
    losses = []
    for i in range(12):
        for j in range(12):
            if i != j and labels[i // 2] == labels[j // 2]:
                near = (f[i] - f[j]).square().sum()
                far = ((f[i] - g[i]).square().sum() + (f[j] - g[j]).square().sum()) / 2
                losses.append(-torch.log(torch.exp(-near) / (torch.exp(-near) + torch.exp(-far))))
    torch.testing.assert_close(terms.inter, torch.stack(losses).mean())


def test_class_maps_and_label_cams_give_the_same_loss_and_gradient():
    cam_a, cam_b, features = make_batch()
    maps_a, maps_b = torch.randn(2, 6, 4, 5, 7, dtype=torch.float64)
    index = torch.arange(6)
    maps_a[index, LABELS], maps_b[index, LABELS] = cam_a, cam_b
    maps_a.requires_grad_()
    cam_a.requires_grad_()
    of_maps, of_cams = iir_loss(maps_a, maps_b, features, LABELS).loss, iir_loss(cam_a, cam_b, features, LABELS).loss
    assert torch.equal(of_maps, of_cams)
    gradient = torch.autograd.grad(of_maps, maps_a)[0]
    torch.testing.assert_close(gradient[index, LABELS], torch.autograd.grad(of_cams, cam_a)[0])
    assert gradient.count_nonzero() == cam_a.numel()


@pytest.mark.parametrize("regulation", ["dual", "agreement"])
@pytest.mark.parametrize("labels", [torch.arange(6), torch.zeros(6, dtype=torch.int64)], ids=["classes", "one_class"])
def test_batches_of_classes_of_one_image_or_of_one_class_are_finite(regulation, labels):
    leaves = [tensor.requires_grad_() for tensor in make_batch(torch.float32)]
    iir_loss(*leaves, labels, regulation=regulation).loss.backward()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


def test_taking_the_background_of_a_class_for_its_foreground_costs():
    """Seen in training, of one classifier and of both, while descriptors were compared under the same classifier only
    and foregrounds with their own backgrounds only: there it costs nothing."""
    objects = torch.zeros(4, 6, 6)
    objects[:, :, :2] = 1
    features = torch.zeros(4, 3, 6, 6)
    features[:2, 0] = features[2:, 1] = objects[0]  # each class has an object of its own kind, all have one background
    features[:, 2] = 1 - objects[0]
    labels = torch.tensor([0, 0, 1, 1])
    swapped = torch.cat((1 - objects[:2], objects[2:]))
    right, one, both = (
        iir_loss(*cams, features, labels).inter for cams in ((objects, objects), (objects, swapped), (swapped, swapped))
    )
    assert one > 1.2 * right
    assert both > 1.2 * right


def test_an_empty_batch_is_a_zero_connected_to_the_graph():
    cams = torch.zeros(2, 0, 5, 7, requires_grad=True)
    loss = IIRLoss()(cams[0], cams[1], torch.zeros(0, 9, 5, 7), LABELS[:0])
    assert loss.item() == 0
    loss.backward()
    assert cams.grad.shape == cams.shape


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-6, 1e6, 1e15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_finite_batch_never_becomes_nan(scale, dtype):
    leaves = [(scale * tensor).to(dtype).requires_grad_() for tensor in make_batch()]
    loss = IIRLoss(regulation="agreement")(*leaves, LABELS)
    loss.backward()
    assert loss.isfinite()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


def test_drop_in_training_loop_lowers_the_loss(implementation):
    """The README's lines in a plain loop, with every term going down. Triton's interpreter is slow."""
    steps, share = (60, 0.6) if implementation == "native" else (8, 0.9)
    torch.manual_seed(0)
    head = DualCAMHead(9, 3, hidden=8)
    loss_fn = IIRLoss()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.05, momentum=0.9)
    _, _, features = make_batch(torch.float32)
    losses = []
    for _ in range(steps):
        out = head(features, LABELS)
        loss = F.cross_entropy(out.logits_a, LABELS) + F.cross_entropy(out.logits_b, LABELS)
        loss = loss + loss_fn(out)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < share * losses[0]


def test_training_step_compiles_into_one_graph_and_agrees():
    torch._dynamo.reset()
    torch.manual_seed(0)
    head, loss_fn = DualCAMHead(9, 3, hidden=8, threshold="learned"), IIRLoss()
    features = make_batch(torch.float32)[2]

    def step(features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        out = head(features, labels)
        return loss_fn(out)

    eager = step(features, LABELS)
    expected = torch.autograd.grad(eager, head.parameters(), allow_unused=True)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(features, LABELS)
    torch.testing.assert_close(compiled, eager)
    for one, other in zip(torch.autograd.grad(compiled, head.parameters(), allow_unused=True), expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_autocast_with_bfloat16_features_keeps_the_loss_close():
    torch.manual_seed(0)
    head, loss_fn = DualCAMHead(9, 3, hidden=8), IIRLoss()
    features = make_batch(torch.float32)[2]

    def step() -> torch.Tensor:
        out = head(features, LABELS)
        return loss_fn(out)

    full = step()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = step()
    lowered.backward()
    assert lowered.dtype == torch.float32
    torch.testing.assert_close(lowered, full, rtol=0.02, atol=0)
    assert all(parameter.grad.isfinite().all() for parameter in head.branches.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"regulation": "both"}, "regulation is 'both'; accepted are dual, agreement"),
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": 0}, "temperature is 0"),
        ({"intra_weight": -0.5}, "intra_weight is -0.5; accepted is a number of at least 0"),
        ({"inter_weight": float("nan")}, "inter_weight is nan; accepted is a number of at least 0"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(ValueError, match=f"^IIRLoss: {words}"):
        IIRLoss(**options)
    called = "regulate" if "temperature" in options else "iir_loss"
    with pytest.raises(ValueError, match=f"^{called}: {words}"):
        iir_loss(*make_batch(), LABELS, **options)


def test_a_weight_may_be_zero():
    both, intra, inter = (
        iir_loss(*make_batch(), LABELS, intra_weight=first, inter_weight=second)
        for first, second in ((2, 3), (2, 0), (0, 3))
    )
    torch.testing.assert_close(intra.loss, 2 * both.intra)
    torch.testing.assert_close(inter.loss, 3 * both.inter)
    assert IIRLoss(0, 0)(*make_batch(), LABELS) == 0


@pytest.mark.parametrize(
    ("position", "value", "error", "words"),
    [
        (0, torch.zeros(6, 5), ValueError, r"^iir_loss: cam_a has shape \[6, 5\]; accepted are label CAMs"),
        (1, torch.zeros(6, 5), ValueError, r"^iir_loss: cam_b has shape \[6, 5\]; accepted are label CAMs"),
        (1, torch.zeros(6, 5, 8), ValueError, "^regulate: cam_b has shape"),
        (0, torch.zeros(6, 2, 5, 7), IndexError, "^iir_loss: labels holds values from 0 to 2; accepted are 0 to 1"),
        (2, torch.zeros(6, 9, 4, 7), ValueError, "^masked_pool: masks has shape"),
        (3, torch.zeros(6), TypeError, "^iir_loss: labels has dtype torch.float32; accepted is torch.int64"),
        (3, torch.zeros(5, dtype=torch.int64), ValueError, r"^iir_loss: labels has shape \[5\]"),
        (4, torch.zeros(6), ValueError, r"^regulate: thresholds has shape \[6\]"),
        (
            4,
            torch.full((6, 2), 1.5),
            ValueError,
            "^iir_loss: thresholds holds values from 1.5 to 1.5; accepted are 0 to 1",
        ),
        (
            4,
            torch.full((6, 2), -0.5),
            ValueError,
            "^iir_loss: thresholds holds values from -0.5 to -0.5; accepted are 0 to 1",
        ),
    ],
)
def test_bad_arguments_are_named(position, value, error, words):
    arguments = [*make_batch(torch.float32), LABELS, None]
    arguments[position] = value
    with pytest.raises(error, match=words):
        iir_loss(*arguments)


@pytest.mark.parametrize(
    ("hidden", "threshold", "options"),
    [
        *((hidden, threshold, {}) for hidden in (None, 6) for threshold in ("learned", "mean", "fixed")),
        (None, "learned", {"temperature": 0.3}),
        (6, "mean", {"temperature": 0.05, "regulation": "agreement"}),
    ],
)
def test_takes_what_the_head_returns_or_its_pieces(hidden, threshold, options, each_backend):
    torch.manual_seed(0)
    head = DualCAMHead(9, 3, hidden=hidden, threshold=threshold).double()
    if threshold == "learned":
        torch.nn.init.normal_(head.threshold_weight)
    features = make_batch()[2].requires_grad_()
    loss_fn = IIRLoss(**options)

    def gradients(whole: bool) -> list[torch.Tensor]:
        out = head(features, LABELS)
        pieces = (out,) if whole else (out.cam_a, out.cam_b, features, LABELS, out.thresholds)
        loss = loss_fn(*pieces)
        found = torch.autograd.grad(loss, [features, *head.parameters()], allow_unused=True)
        return [loss.detach(), *(each for each in found if each is not None)]

    with backend(each_backend):
        for one, other in zip(gradients(True), gradients(False), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_heads_output_stands_alone():
    out = DualCAMHead(9, 3, hidden=None)(make_batch(torch.float32)[2], LABELS)
    with pytest.raises(
        TypeError, match=r"^IIRLoss: arguments follow the head's output; accepted is the output alone\.$"
    ):
        IIRLoss()(out, out.cam_b)
    given = {"cam_a": out.cam_a, "cam_b": out.cam_b, "features": out.features, "labels": LABELS}
    torch.testing.assert_close(IIRLoss()(**given), IIRLoss()(out))
    for missing in ("cam_b", "features", "labels"):
        with pytest.raises(TypeError) as raised:
            IIRLoss()(**{**given, missing: None})
        assert str(raised.value) == (
            "IIRLoss: cam_b, features or labels are missing; accepted are cam_a, cam_b, features, labels and, if "
            "wanted, thresholds, or what a DualCAMHead returned."
        )


def test_its_weight_is_an_eighth_of_the_way_from_chance_to_certainty(monkeypatch):
    head = DualCAMHead(4, 3, hidden=None).double()
    labels = torch.tensor([0, 1])
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
    out = head(torch.rand(2, 4, 3, 3, dtype=torch.float64), labels)
    assert IIRLoss().weight_of(out) == 0
    sure, wrong = torch.tensor([[0.5, 0, 0], [0, 0, 0]]), torch.tensor([[0, 9.0, 9.0], [9.0, 0, 0]])
    p = (
        torch.e**0.5 / (torch.e**0.5 + 2) + 1 / 3
    ) / 2  # both classifiers' mean, of the one image that is not at chance
    weighed = out._replace(logits_a=sure.double(), logits_b=torch.zeros(2, 3, dtype=torch.float64))
    assert IIRLoss().weight_of(weighed).item() == pytest.approx(8 * ((3 * p - 1) / 2 + 0) / 2)
    first = weighed._replace(**{name: getattr(weighed, name)[:1] for name in ("logits_a", "logits_b", "labels")})
    monkeypatch.setattr("iir_fast.loss.gather_rows", lambda rows: torch.cat((rows, torch.zeros_like(rows))))
    assert IIRLoss().weight_of(first) == 2 * IIRLoss(gather=True).weight_of(first)
    assert IIRLoss(gather=True).weight_of(first) == IIRLoss().weight_of(weighed)
    assert IIRLoss().weight_of(out._replace(logits_a=wrong, logits_b=wrong)) == 0
    certain = torch.tensor([[99.0, 0, 0], [0, 99.0, 0]], requires_grad=True)
    whole = IIRLoss().weight_of(out._replace(logits_a=certain, logits_b=certain))
    assert whole == 1
    assert not whole.requires_grad
    assert IIRLoss().weight_of(head(torch.rand(0, 4, 3, 3, dtype=torch.float64), labels[:0])) == 0
