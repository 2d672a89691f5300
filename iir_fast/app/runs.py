"""What the folder of a run holds: its localizer with the data it is for, and its evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import Progress
from torch.utils.data import DataLoader

from iir_fast.app.details import collect, write_details
from iir_fast.app.files import read_text
from iir_fast.app.history import add_to_history
from iir_fast.app.progress import count_images, image_progress, log
from iir_fast.app.tables import metrics_table
from iir_fast.data import LocalizationDataset, absolute_source, image_transform
from iir_fast.evaluation import (
    Evaluator,
    FixedThreshold,
    Metrics,
    Refinement,
    Verdict,
    evaluate_maps,
    predict,
    refined_name,
)
from iir_fast.localization import Predictor
from iir_fast.models import DEFAULT_MAP, MAPS, IIRNetwork, MapName, NetworkSpec, load_network
from iir_fast.training import RunFolder, TrainConfig, Validate, Validated, frozen_features, open_data, pick_device

EVALUATION_BATCH = 32
OVERLAYS, OVERLAY_SIZE = 4, 512
"""Of a validation: how many images at most, and their longest side in pixels."""


class LoadedRun(NamedTuple):
    """A run's localizer and one split of its data."""

    model: IIRNetwork
    """In eval mode."""
    spec: NetworkSpec
    config: TrainConfig
    """How it was trained."""
    dataset: LocalizationDataset
    """The split, its images transformed as the localizer wants them."""

    def __repr__(self) -> str:
        network = f"{self.spec.backbone}, {len(self.spec.classes)} classes"
        return f"LoadedRun({network}, {len(self.dataset)} {self.dataset.split} images)"


class Evaluation(dict[MapName, Metrics]):
    """The metrics of each map; a notebook shows them as a table."""

    def _repr_mimebundle_(self, include: Sequence[str], exclude: Sequence[str], **options: Any) -> dict[str, str]:
        return metrics_table(self)._repr_mimebundle_(include, exclude, **options)


def load(path: str | Path, device: str = "auto") -> Predictor:
    """Load a trained localizer, ready to find objects in any images.

        [found] = iir_fast.load("runs/mine").localize("holiday.jpg")

    Args:
        path: folder of a run, whose newest checkpoint and last evaluation on its test split are read; or a checkpoint.
        device: "auto", "cpu" or "cuda".

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the checkpoint, or the run's metrics.json, cannot be read.
        RuntimeError: "cuda" was asked for and there is none.
    """
    path = Path(path).expanduser()
    model, spec = load_network(path, pick_device(device))
    evaluated = RunFolder(path).read_metrics().get("test", {})
    fixed = {map: metrics.get("fixed_threshold") for map, metrics in evaluated.items()}
    chosen = {map: FixedThreshold(each["value"], each["chosen_on"]) for map, each in fixed.items() if each}
    return Predictor(model, spec, chosen)


def result_name(config: TrainConfig, split: str, data: str | None) -> str:
    """Name the results of a split: of other data than a run's own, "test of SOURCE", so that they stand apart."""
    source = absolute_source(config.data if data is None else data)
    return split if source == absolute_source(config.data) else f"{split} of {source}"


def load_run(root: Path, split: str = "test", *, data: str | None = None, device: str = "auto") -> LoadedRun:
    """Load what a run's folder holds, and open a split of what it was trained on, or of `data`, as `open_split` has it.

    Raises:
        FileNotFoundError: the folder holds no run, or the data no such split.
        ValueError, BrokenImageError: as `ListedDataset.check`.
    """
    config = read_config(root)
    run = _with_data(*load_network(root, pick_device(device)), config, split, data)
    for remark in run.dataset.check():
        log(remark)
    return run


def read_config(root: Path) -> TrainConfig:
    """Read how a run was trained.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: its config.yaml is at fault.
    """
    file = RunFolder(root).config
    if not file.is_file():
        raise FileNotFoundError(f"run {root} has no {file.name}; it is not the folder of a run.")
    return TrainConfig.from_yaml(read_text(file), str(file))


def _with_data(
    model: IIRNetwork, spec: NetworkSpec, config: TrainConfig, split: str, data: str | None = None
) -> LoadedRun:
    transform = image_transform(spec.image_size, model.backbone.mean, model.backbone.std)
    dataset = open_data(config, split, transform, spec.classes, data)
    say_skipped(dataset)
    return LoadedRun(model, spec, config, dataset)


def say_skipped(dataset: LocalizationDataset) -> None:
    """Say how many images of a split that is to be evaluated are left out, if any."""
    if dataset.skipped:
        log(f"skipped {len(dataset.skipped)} {dataset.split} images that cannot be read.")


def image_batches(run: LoadedRun, progress: Progress, images: Sequence[int] | None = None) -> DataLoader[Any]:
    """Load batches of what the localizer reads, with labels: images, or a frozen backbone's features from the cache.

    Args:
        run: `freeze_backbone` of its configuration tells which of the two; the localizer's `from_features`.
        progress: gets a bar where features have to be computed first.
        images: which images of the data set, in this order; None: all.
    """
    if run.config.model.freeze_backbone:
        source = frozen_features(run.model, run.spec, run.dataset, run.config, progress)
        return DataLoader(source, EVALUATION_BATCH, sampler=images, collate_fn=source.collate)
    return DataLoader(run.dataset, EVALUATION_BATCH, sampler=images, num_workers=run.config.images.workers)


def evaluate_run(
    root: Path,
    split: str = "test",
    maps: tuple[MapName, ...] = MAPS,
    *,
    data: str | None = None,
    step: float = 0.01,
    fixed_threshold: FixedThreshold | None = None,
    device: str = "auto",
    save_maps: Path | None = None,
    details: Path | None = None,
    refinement: Refinement = "none",
) -> Evaluation:
    """Evaluate the localizer of a run, and add the result to the run's `metrics.json`; a damaged one is set aside.

    The result of other data than the run's own stands there under "test of SOURCE": the run's own stays as it is, and
    so does the threshold that `load` takes.

    Args:
        root: the run's folder.
        split: which split of the data.
        maps: which localization maps.
        data: a source of data, as `open_split` takes it; what the run was trained on by default.
        step: distance of two thresholds; the protocol's training runs use 0.001.
        fixed_threshold: the tau of GT-known and Top-k localization and where it comes from; None: chosen on `split`.
        device: "auto", "cpu" or "cuda".
        save_maps: folder for the score maps, `<save_maps>/<map>/<image id>.npy`; None: they are not kept.
        details: folder for what becomes of each image and class, as `write_details` writes it; None: nobody asks.
        refinement: how score maps are refined by their images; in `metrics.json` the result stands apart, under
            "test, grabcut" and the like, and no threshold is taken from it.

    Raises:
        FileNotFoundError: the folder holds no run, or the data no such split.
    """
    if save_maps:
        save_maps.mkdir(parents=True, exist_ok=True)
    run = load_run(root, split, data=data, device=device)
    name = result_name(run.config, split, data)
    measured = evaluate(run, maps, Evaluator(name, step, fixed_threshold), save_maps, details, refinement)
    source = absolute_source(run.config.data if data is None else data)
    metrics = Evaluation({map: replace(result, data=source) for map, result in measured.items()})
    first = next(iter(metrics.values()))
    if first.max_box_acc_v2 is None and first.pxap is None:
        accuracy = f"the top-1 accuracy is {first.top1_accuracy:.1f} %"
        log(f"{name} has neither boxes nor masks: nothing is localized there, {accuracy}.")
    folder = RunFolder(root)
    content = folder.sound_metrics()
    part = refined_name(name, refinement)
    content.setdefault(part, {}).update({map: result.to_dict() for map, result in metrics.items()})
    folder.write_metrics(content)
    add_to_history(root, f"evaluate {part}", source, run.dataset)
    return metrics


def validation(config: TrainConfig, split: str) -> Validate:
    """Make what chooses the best checkpoint: MaxBoxAccV2 of the default map, PxAP where there are masks alone, or the
    accuracy where there is neither. A tracker gets overlays of a few images, those at even distances in the split."""

    def validate(model: IIRNetwork, spec: NetworkSpec) -> Validated:
        run = _with_data(model, spec, config, split)
        metrics = evaluate(run, (DEFAULT_MAP,), Evaluator(split))[DEFAULT_MAP]
        known = (metrics.max_box_acc_v2, metrics.pxap, metrics.top1_accuracy)
        metric = next(value for value in known if value is not None)
        if config.saving.tracker == "none":
            return Validated(metric)
        shown = range(0, len(run.dataset), -(-len(run.dataset) // OVERLAYS))
        found = Predictor(model, spec).localize([run.dataset.image(i) for i in shown])
        return Validated(metric, {f"{split}/{i}": each.draw(size=OVERLAY_SIZE) for i, each in enumerate(found)})

    return validate


def evaluate(
    run: LoadedRun,
    maps: tuple[MapName, ...],
    evaluator: Evaluator,
    save_maps: Path | None = None,
    details: Path | None = None,
    refinement: Refinement = "none",
) -> dict[MapName, Metrics]:
    """Evaluate the localizer of a run on its split."""
    dataset, count = run.dataset, len(run.dataset)
    if details:
        details.mkdir(parents=True, exist_ok=True)  # now, rather than fail when all is done
    with image_progress() as progress:
        loader = image_batches(run, progress)
        on_batch = count_images(progress, f"localize {dataset.split}", count)
        predictions = predict(run.model, loader, maps, run.config.model.freeze_backbone, on_batch)
        metrics, verdicts = {}, dict[str, list[Verdict]]()
        for map in maps:
            on_image = count_images(progress, f"boxes of {map} maps", count)
            save_to = save_maps and save_maps / map
            on_verdict = None
            if details:
                judging = count_images(progress, f"errors of {map} maps", count)
                on_verdict = collect(verdicts.setdefault(map, []), judging)
            metrics[map] = evaluate_maps(
                predictions, map, dataset, evaluator, on_image, save_to, refinement, on_verdict
            )
    if details:
        write_details(details, verdicts, dataset.classes)
    return metrics
