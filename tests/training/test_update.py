"""One update: accumulation, precision, clipping, averages, and what becomes of numbers that are not finite."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from torch import nn

from iir_fast import backend
from iir_fast.methods import Learner
from iir_fast.models import IIRNetwork, NetworkSpec, load_network
from iir_fast.training import NonFiniteLoss, RunFolder, TrainConfig, Validated, train, update
from iir_fast.training.loading import Batch
from iir_fast.training.optimization import create_optimizer
from iir_fast.training.ranks import Ranks
from iir_fast.training.update import Updater

CONFIG = TrainConfig().with_options(
    hidden=None, freeze_backbone=True, optimizer="sgd", learning_rate=0.1, schedule="cosine"
)
LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])


@pytest.fixture
def model() -> IIRNetwork:
    torch.manual_seed(0)
    model = NetworkSpec("small_cnn", tuple("abcd"), 32, hidden=None).build()
    model.backbone.requires_grad_(False).eval()
    return model


def updater(model: IIRNetwork, **options) -> Updater:
    config = CONFIG.with_options(**options)
    return Updater(config, Learner(config.method, model, config.caches_features), Ranks(), updates_per_epoch=10)


def batches(count: int, scale: float = 1.0) -> list[Batch]:
    random = torch.Generator().manual_seed(1)
    return [Batch(scale * torch.rand(8, 64, 8, 8, generator=random), LABELS, list(range(8)), 0.0) for _ in range(count)]


def gradients(model: IIRNetwork) -> list[torch.Tensor]:
    return [each.grad.clone() for each in model.head.parameters()]


def test_accumulated_batches_give_their_mean_gradient(model):
    apart = []
    for batch in batches(3):
        of_one = copy.deepcopy(model)
        updater(of_one).update([batch])
        apart.append(gradients(of_one))
    record = updater(model, accumulate=3).update(batches(3))
    for found, *each in zip(gradients(model), *apart, strict=True):
        torch.testing.assert_close(found, torch.stack(each).mean(0))
    assert set(record.terms) == {"total", "classification", "intra", "inter", "accuracy"}
    assert record.gradient_norm is None


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_norm_is_measured_before_gradients_are_clipped(precision, model):
    """In fp16 the loss is scaled by 65,536, and the gradients are not any more."""
    record = updater(model, clip=0.01, precision=precision).update(batches(1))
    norm = torch.stack([each.norm() for each in gradients(model)]).norm()
    assert 0.02 < record.gradient_norm < 100
    assert norm == pytest.approx(0.01, rel=1e-3)
    asked = updater(copy.deepcopy(model), precision=precision).update(batches(1), wants_norm=True)
    assert 0.02 < asked.gradient_norm < 100


def test_the_average_follows_the_weights(model):
    made = updater(model, ema_decay=0.75)
    expected = None
    for batch in batches(3):
        made.update([batch])
        now = model.head.weight.detach()
        expected = now.clone() if expected is None else 0.75 * expected + 0.25 * now
    torch.testing.assert_close(made.average.module.head.weight, expected)
    assert torch.equal(made.average.module.prototypes.vectors, model.prototypes.vectors)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_close_to_full(precision, model):
    low = copy.deepcopy(model)
    full = updater(model).update(batches(1))
    found = updater(low, precision=precision).update(batches(1))
    assert found.terms["total"].item() == pytest.approx(full.terms["total"].item(), rel=2e-2)
    assert low.head.weight.dtype == torch.float32
    assert not torch.equal(low.head.weight, model.head.weight)


@pytest.mark.parametrize("fused", [False, True])
def test_fp16_overflow_leaves_the_update_out_counts_it_and_lowers_the_scale(fused, model, monkeypatch):
    # As on a GPU, where updates are fused.
    monkeypatch.setattr(update, "create_optimizer", lambda *given, **_: create_optimizer(*given, fused=fused))
    made = updater(model, precision="fp16", ema_decay=0.5, clip=1.0)
    made.update(batches(1))
    before, rate = model.head.weight.clone(), made.optimizer.param_groups[0]["lr"]
    # The loss is finite, its gradient times the initial scale of 65,536 is not.
    record = made.update(batches(1, scale=1e2))
    assert record.overflowed
    assert record.non_finite is None
    assert not record.gradient_norm.isfinite()
    assert made.overflows == 1
    assert torch.equal(model.head.weight, before)
    assert torch.equal(made.average.module.head.weight, before)
    assert made.state_dict()["averaged"] == 1
    assert made.optimizer.param_groups[0]["lr"] == rate
    assert made.state_dict()["scaler"]["scale"] < 65536


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_loss_that_is_not_finite_changes_nothing_and_names_its_term(precision, model):
    made = updater(model, precision=precision)
    before = copy.deepcopy(model.state_dict())
    record = made.update(batches(1, scale=float("inf")))
    assert record.non_finite == "classification"
    assert record.overflowed is False
    assert made.non_finite == 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert made.update(batches(1)).non_finite is None


def test_a_loss_of_finite_terms_that_is_not_finite_is_called_the_total(model, monkeypatch):
    sound = Learner.forward

    def unsound(*arguments):
        result = sound(*arguments)
        return result._replace(loss=result.loss * torch.inf)

    monkeypatch.setattr(Learner, "forward", unsound)
    assert updater(model).update(batches(1)).non_finite == "total"


@pytest.mark.parametrize(
    ("precision", "scale", "expected"),
    [
        ("fp32", float("inf"), {"scaler": {}, "averaged": 1, "overflows": 0, "non_finite": 2}),
        ("fp16", 1e2, {"averaged": 1, "overflows": 2, "non_finite": 0}),
    ],
)
def test_another_takes_up_what_is_neither_network_nor_optimizer(precision, scale, expected, model):
    def state(of: Updater) -> dict[str, object]:
        return {name: of.state_dict()[name] for name in ("scaler", "averaged", "overflows", "non_finite")}

    made, other = (updater(copy.deepcopy(model), precision=precision, ema_decay=0.5) for _ in range(2))
    for batch in (*batches(1), *2 * batches(1, scale)):
        made.update([batch])
    other.load_state_dict(made.state_dict())
    assert state(other) == state(made)
    assert expected.items() <= state(made).items()
    assert updater(model).state_dict()["averaged"] == 0


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_network_reads_the_layout_that_was_asked_for(channels_last, model, monkeypatch):
    sound, read = Learner.forward, []

    def note(self, inputs, labels):
        read.append(inputs.is_contiguous(memory_format=torch.channels_last))
        return sound(self, inputs, labels)

    monkeypatch.setattr(Learner, "forward", note)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = [batch._replace(inputs=batch.inputs.to(memory_format=layout)) for batch in batches(1)]
        updater(model, channels_last=channels_last).update(given)
    assert read == [channels_last] * 2


def test_a_fault_of_another_rank_leaves_the_update_out_here_too(model, monkeypatch):
    made = updater(model)
    before = copy.deepcopy(model.state_dict())
    monkeypatch.setattr(Ranks, "all_true", lambda self, condition, device: False)
    assert made.update(batches(1)).non_finite == "another rank's"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@contextmanager
def one_process_group() -> Iterator[None]:
    """A process group of this process alone, for what asks whether there is one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.mark.filterwarnings("error::FutureWarning")
def test_a_method_among_ranks_need_not_use_every_parameter():
    model = NetworkSpec("small_cnn", tuple("abcd"), 32, hidden=None, threshold="learned").build()
    model.backbone.requires_grad_(False).eval()
    config = CONFIG.with_options(method="cam")
    with one_process_group():
        made = Updater(config, Learner(config.method, model, config.caches_features), Ranks(0, 2), updates_per_epoch=10)
        with backend("reference"):  # the others' thresholds are part of the one step that makes the logits
            for batch in batches(2):  # the second one would wait for what the first one did not give
                made.update([batch])
    assert model.head.weight.grad.abs().sum() > 0
    assert model.head.threshold_weight.grad is None


def test_ranks_send_their_gradients_once_per_update(model, monkeypatch):
    sent: list[int] = []

    class Counted(nn.parallel.DistributedDataParallel):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.register_comm_hook(None, self.count)

        def count(self, _, bucket):
            sent.append(bucket.index())
            (future := torch.futures.Future()).set_result(bucket.buffer())
            return future

    monkeypatch.setattr(update, "DistributedDataParallel", Counted)
    with one_process_group():
        learner = Learner(CONFIG.method, model, CONFIG.caches_features)
        Updater(CONFIG, learner, Ranks(0, 2), updates_per_epoch=10).update(batches(3))
    assert len(sent) == len(set(sent)) > 0


TINY = TrainConfig().with_options(
    train_images=80, test_images=20, epochs=2, classes_per_batch=4, images_per_class=4, hidden=8
)


def test_training_stops_at_a_loss_that_is_not_finite_and_saves_what_made_it(tmp_path):
    config = TINY.with_options(learning_rate=1e30, schedule="cosine", optimizer="sgd")
    with pytest.raises(NonFiniteLoss, match=r"the loss of step 2 is not finite: \w+; its images stand in .*json\. To"):
        train(config, tmp_path / "run")
    report = json.loads((tmp_path / "run" / "non_finite_step00000002_rank0.json").read_text())
    assert report["step"] == 2
    assert len(report["images"]) == 16
    assert report["images"][0].startswith("train/")
    assert report["terms"][report["term"]] in ("nan", "inf")


def test_told_to_skip_it_goes_on_and_counts(tmp_path):
    config = TINY.with_options(learning_rate=1e30, schedule="cosine", optimizer="sgd", non_finite="skip")
    train(config, tmp_path / "run")
    training = RunFolder(tmp_path / "run").checkpoints.newest().training
    assert training["step"] == 10
    assert training["non_finite"] == 9


def test_all_options_of_large_batches_train_together_and_resume(tmp_path):
    options = {"accumulate": 2, "precision": "bf16", "clip": 1.0, "ema_decay": 0.9, "channels_last": True}
    config = TINY.with_options(**options, optimizer="lamb", schedule="cosine", warmup_epochs=1, flip=True, workers=2)
    chosen = iter([2.0, 1.0])
    train(config, tmp_path / "run", validate=lambda model, spec: Validated(next(chosen)))
    folder = RunFolder(tmp_path / "run").checkpoints
    last, best = folder.newest(), load_network(folder.best)[0]
    assert last.training["step"] == 4
    assert last.training["best"] == 2.0
    assert not torch.equal(best.head.weight, last.model["head.weight"])
    again = train(config, tmp_path / "run", "resume").model
    assert torch.equal(again.head.weight, last.model["head.weight"])


@pytest.mark.filterwarnings("ignore:Error detected in:UserWarning")
def test_detect_anomaly_names_the_operation(model, monkeypatch):
    """A loss that is finite, with a gradient that is not: 0 times the infinite slope of a root at 0."""
    made = updater(model, detect_anomaly=True)
    sound = Learner.forward

    def unsound(*arguments):
        result = sound(*arguments)
        return result._replace(loss=result.loss + (0 * model.head.weight).sum().sqrt())

    monkeypatch.setattr(Learner, "forward", unsound)
    with pytest.raises(RuntimeError, match="Function 'MulBackward0' returned nan values"):
        made.update(batches(1))
    assert not torch.is_anomaly_enabled()
    monkeypatch.undo()
    assert updater(model).update(batches(1)).non_finite is None


def test_a_compiled_backbone_learns_the_same(model, monkeypatch):
    graphs = []

    def count_graphs(graph, inputs):
        graphs.append(graph)
        return graph.forward

    whole = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: whole(module, backend=count_graphs))
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    plain = copy.deepcopy(model)
    for each, compiled in ((plain, False), (model, True)):
        each.backbone.requires_grad_(True)
        made = updater(each, compile=compiled, freeze_backbone=False)
        made.update([Batch(images, LABELS, list(range(8)), 0.0)])
        assert len(graphs) == compiled
    for one, other in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other)
