"""Evaluation of what the folder of a run holds."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from iir_fast.data import LocalizationDataset, image_transform, open_split
from iir_fast.evaluation import Evaluator, FixedThreshold, Metrics, evaluate_maps, predict
from iir_fast.models import MAP_KINDS, IIRLocalizer, LocalizerSpec, MapKind, load_localizer
from iir_fast.progress import console, image_progress
from iir_fast.training import RunFolder, TrainConfig, Validate, frozen_features, pick_device

EVALUATION_BATCH = 32


def evaluate_run(
    root: Path,
    split: str = "test",
    kinds: tuple[MapKind, ...] = MAP_KINDS,
    *,
    data: str | None = None,
    step: float = 0.01,
    fixed_threshold: FixedThreshold | None = None,
    device: str = "auto",
) -> dict[MapKind, Metrics]:
    """Evaluate the localizer of a run, and add the result to the run's `metrics.json`.

    Args:
        root: the run's folder.
        split: which split of the data.
        kinds: which localization maps.
        data: a source of data, as `open_split` takes it; what the run was trained on by default.
        step: distance of two thresholds; the protocol's training runs use 0.001.
        fixed_threshold: the tau of GT-known and Top-k localization and where it comes from; None: chosen on `split`.
        device: "auto", "cpu" or "cuda".

    Returns:
        The metrics of each kind of map.

    Raises:
        FileNotFoundError: the folder holds no run, or the data no such split.
    """
    folder = RunFolder(root)
    if not folder.config.is_file():
        raise FileNotFoundError(f"run {root} has no {folder.config.name}; it is not the folder of a run.")
    config = TrainConfig.from_yaml(folder.config.read_text(encoding="utf-8"))
    model, spec = load_localizer(root, pick_device(device))
    dataset = _open(model, spec, config, split, data)
    if dataset.skipped:
        console.print(f"skipped {len(dataset.skipped)} {split} images that cannot be read.")
    metrics = evaluate(model, spec, dataset, config, kinds, Evaluator(split, step, fixed_threshold))
    first = next(iter(metrics.values()))
    if first.max_box_acc_v2 is None and first.pxap is None:
        accuracy = f"the top-1 accuracy is {first.top1_accuracy:.1f} %"
        console.print(f"{split} has neither boxes nor masks: nothing is localized there, {accuracy}.", highlight=False)
    content = folder.read_metrics()
    content.setdefault(split, {}).update({kind: result.to_dict() for kind, result in metrics.items()})
    folder.write_metrics(content)
    return metrics


def validation(config: TrainConfig, split: str) -> Validate:
    """What training chooses its best checkpoint by: the evidence map's MaxBoxAccV2 on a split, or, where that has
    masks alone, its PxAP.

    Args:
        config: of the run that is trained.
        split: which split of its data.
    """

    def figure(model: IIRLocalizer, spec: LocalizerSpec) -> float:
        dataset = _open(model, spec, config, split)
        found = evaluate(model, spec, dataset, config, ("evidence",), Evaluator(split))["evidence"]
        value = found.pxap if found.max_box_acc_v2 is None else found.max_box_acc_v2
        if value is None:
            raise ValueError(f"validate names split {split!r}, which has neither boxes nor masks.")
        return value

    return figure


def _open(
    model: IIRLocalizer, spec: LocalizerSpec, config: TrainConfig, split: str, data: str | None = None
) -> LocalizationDataset:
    return open_split(
        data or config.data,
        split,
        image_transform(spec.image_size, model.backbone.mean, model.backbone.std),
        classes=spec.classes,
        skip_broken=config.skip_broken,
        images=config.test_images if split == "test" else config.train_images,
        recipe=config.recipe,
    )


def evaluate(
    model: IIRLocalizer,
    spec: LocalizerSpec,
    dataset: LocalizationDataset,
    config: TrainConfig,
    kinds: tuple[MapKind, ...],
    evaluator: Evaluator,
) -> dict[MapKind, Metrics]:
    """Evaluate a localizer in eval mode on a data set; a frozen backbone's features come from the cache."""
    with image_progress() as progress:
        if config.freeze_backbone:
            source = frozen_features(model, spec, dataset, config, progress)
            loader: DataLoader[Any] = DataLoader(source, EVALUATION_BATCH, collate_fn=source.collate)
        else:
            loader = DataLoader(dataset, EVALUATION_BATCH, num_workers=config.workers)
        task = progress.add_task(f"localize {dataset.split}", total=len(dataset), note="")
        predictions = predict(model, loader, kinds, config.freeze_backbone, partial(progress.advance, task))
        metrics = {}
        for kind in kinds:
            task = progress.add_task(f"boxes of {kind} maps", total=len(dataset), note="")
            metrics[kind] = evaluate_maps(predictions, kind, dataset, evaluator, partial(progress.advance, task))
    return metrics
