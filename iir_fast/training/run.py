"""The state of one training run, and its way from step to step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from PIL import Image
from rich.progress import Progress, TaskID

from iir_fast.app.files import in_short, write_whole
from iir_fast.app.interruption import Interrupted
from iir_fast.app.progress import log
from iir_fast.data import LocalizationDataset, SubgroupSampler
from iir_fast.methods import Learner
from iir_fast.models import IIRNetwork, NetworkSpec
from iir_fast.training.centring import prefers_centred
from iir_fast.training.config import TrainConfig
from iir_fast.training.features import CachedFeatures
from iir_fast.training.loading import Batch, Source, load_epoch
from iir_fast.training.ranks import Ranks
from iir_fast.training.run_folder import RunFolder
from iir_fast.training.trackers import Track
from iir_fast.training.update import Updater, UpdateRecord


class Validated(NamedTuple):
    """What is said of the network after an epoch."""

    metric: float
    """The best checkpoint is chosen by it, larger is better."""
    pictures: Mapping[str, Image.Image] = {}
    """For the tracker, by name."""


Validate = Callable[[IIRNetwork, NetworkSpec], Validated]
"""Is called with the model in eval mode."""


class NonFiniteLoss(RuntimeError):
    """The loss of a step was NaN or infinite, and training was not told to skip such steps."""


class Run:
    """What a checkpoint must hold for the next process to go on, and the loop.

    One step is one update of the weights, on `accumulate` batches. The learner is on its device; batches are of
    `source`, and `dataset` has the images that it was made of.
    """

    def __init__(
        self,
        config: TrainConfig,
        learner: Learner,
        spec: NetworkSpec,
        source: Source,
        sampler: SubgroupSampler,
        dataset: LocalizationDataset,
        folder: RunFolder,
        ranks: Ranks,
    ) -> None:
        self.config, self.model, self.spec, self.source, self.dataset = config, learner.model, spec, source, dataset
        self.folder, self.ranks = folder, ranks
        options = config.optimization
        self.sampler, self.accumulate = sampler, options.accumulate
        self.images_per_step = sampler.images_per_batch * self.accumulate
        self.steps_per_epoch = len(sampler) // self.accumulate
        self.total_steps = options.epochs * self.steps_per_epoch
        self.last_step = min(self.total_steps, options.max_steps or self.total_steps)
        self.updater = Updater(config, learner, ranks, self.steps_per_epoch)
        self.step = 0
        self.best: float | None = None
        self.awaits_validation = False
        self._load_seconds = self._wait_seconds = 0.0
        self._clock = time.monotonic()

    @property
    def network(self) -> IIRNetwork:
        """What training makes: the averaged network where one is kept."""
        average = self.updater.average
        return self.model if average is None else cast(IIRNetwork, average.module)

    def save(self) -> None:
        """Write a checkpoint. Every rank must call it; the first one writes, and if it cannot, all raise an OSError."""
        training = {
            **self.updater.state_dict(),
            "step": self.step,
            "best": self.best,
            "awaits_validation": self.awaits_validation,
            "weights": None if self.updater.average is None else self.model.state_dict(),
            "rng": self.ranks.gather_objects(_random_state()),
        }
        failure = None
        if self.ranks.is_first:
            try:
                keep = self.config.saving.checkpoints
                self.folder.checkpoints.save(self.step, self.spec, self.network, training, keep)
            except OSError as error:
                failure = str(error)
        failure = self.ranks.gather_objects(failure)[0]
        if failure is not None:
            raise OSError(failure)

    def restore(self) -> None:
        """Take up the newest checkpoint that can be read, if there are any; raise a ValueError where not one can be, or
        the run had another number of ranks."""
        found = self.folder.checkpoints.newest()
        if found is None:
            return
        if self.ranks.is_first:
            for reason in found.damaged:
                log(f"{reason} Going on from {found.path}.")
        training = found.training
        if not isinstance(training, dict) or not isinstance(training.get("rng"), list):
            raise ValueError(f"checkpoint {found.path} holds no training state to resume from.")
        if len(training["rng"]) != self.ranks.size:
            raise ValueError(
                f"the run to resume was trained by {len(training['rng'])} processes and is to go on with "
                f"{self.ranks.size}; start as many."
            )
        self.network.load_state_dict(found.model)
        # A run keeps the CAMs that it began with.
        self.spec = replace(self.spec, class_mean=found.spec.class_mean, centred=found.spec.centred)
        for network in (self.model, self.network):
            network.head.class_mean, network.centred = self.spec.class_mean, self.spec.centred
        try:
            self._take_up(training)
        except Exception as error:  # optimizers and schedules let through whatever they meet
            text = f"checkpoint {found.path} holds no training state of such a run: {in_short(error)}."
            raise ValueError(text) from error
        if self.ranks.is_first:
            log(f"resumed at step {self.step} of {self.last_step}.")

    def _take_up(self, training: dict[str, Any]) -> None:
        if training["weights"] is not None:
            self.model.load_state_dict(training["weights"])
        self.updater.load_state_dict(training)
        self.step, self.best = training["step"], training["best"]
        # Earlier versions validated before they saved.
        self.awaits_validation = training.get("awaits_validation", False)
        _set_random_state(training["rng"][self.ranks.rank])

    def train(self, progress: Progress, track: Track, interrupted: list[bool], validate: Validate | None) -> None:
        """Go on to the end; where Interrupted, NonFiniteLoss or an OSError is raised, the last checkpoint is whole."""
        task = progress.add_task(
            f"train {self.config.method.name}",
            total=self.last_step * self.images_per_step,
            completed=self.step * self.images_per_step,
            note="",
        )
        every = self.config.saving.checkpoint_every or self.steps_per_epoch
        self._validate(validate, track)
        while self.step < self.last_step:
            self.model.train()
            if self.config.model.freeze_backbone:
                self.model.backbone.eval()
            for batches in self._rest_of_epoch():
                self.ranks.step = self.step + 1
                logs = (self.step + 1) % self.config.saving.log_every == 0 or self.step + 1 == self.last_step
                record = self.updater.update(batches, wants_norm=logs)
                self.step += 1
                ends = self.step == self.last_step or self.step % self.steps_per_epoch == 0
                self.awaits_validation = ends and validate is not None
                self._look_after(record, batches)
                if logs and self.ranks.is_first:
                    self._log(record, track, progress, task)
                progress.update(task, advance=self.images_per_step)
                if self.step == self.last_step or self.awaits_validation:
                    self._choose_cams()
                if not self.ranks.all_true(not interrupted[0], self.updater.device):
                    self.save()
                    raise Interrupted(f"stopped at step {self.step} of {self.last_step}; resume to go on from there.")
                if self.step == self.last_step:
                    break
                if self.step % every == 0 and self.step % self.steps_per_epoch:
                    self.save()
            # First: validation may fail, and what was trained is not lost.
            self.save()
            self._validate(validate, track)

    def _choose_cams(self) -> None:
        """Choose the CAMs that localize, unless they are those of training anyway: whole ones, or of a single class."""
        if self.spec.class_mean == 1 or len(self.spec.classes) == 1:
            return
        centred = False
        if self.ranks.is_first:
            centred = prefers_centred(self.network.eval(), self.dataset, self.spec.image_size)
            if centred != self.spec.centred:
                now = "without the mean of all classes" if centred else "as they were trained"
                log(f"CAMs {now} localize from step {self.step} on: by labels alone, they hold more of the objects.")
        centred = self.ranks.gather_objects(centred)[0]
        self.spec = replace(self.spec, centred=centred)
        for network in (self.model, self.network):
            network.centred = centred

    def _rest_of_epoch(self) -> Iterator[list[Batch]]:
        epoch, done = divmod(self.step, self.steps_per_epoch)
        loaded = load_epoch(
            self.source,
            self.sampler,
            epoch,
            done=done * self.accumulate,
            workers=self.config.images.workers,
            pin_memory=self.updater.device.type == "cuda",
        )
        while True:
            start = time.monotonic()
            batches = [batch for _, batch in zip(range(self.accumulate), loaded, strict=False)]
            self._wait_seconds += time.monotonic() - start
            if not batches:
                return
            self._load_seconds += sum(batch.seconds for batch in batches)
            yield batches

    def _look_after(self, record: UpdateRecord, batches: list[Batch]) -> None:
        if record.non_finite is None:
            return
        ids = [self.dataset.ids[i] for batch in batches for i in batch.indices]
        report = {
            "step": self.step,
            "term": record.non_finite,
            "terms": {name: repr(float(value)) for name, value in record.terms.items()},
            "images": ids,
        }
        file = self.folder.root / f"non_finite_step{self.step:08d}_rank{self.ranks.rank}.json"
        write_whole(file, json.dumps(report, indent=2) + "\n")
        sentence = f"the loss of step {self.step} is not finite: {record.non_finite}; its images stand in {file}"
        if self.config.execution.non_finite == "stop":
            raise NonFiniteLoss(f"{sentence}. To leave such steps out, set non_finite to skip.")
        if self.ranks.is_first:
            log(f"left out: {sentence}.")

    def _log(self, record: UpdateRecord, track: Track, progress: Progress, task: TaskID) -> None:
        terms, rates = {name: float(value) for name, value in record.terms.items()}, self._rates()
        counts = {"overflows": self.updater.overflows, "non_finite": self.updater.non_finite}
        left_out = {name: count for name, count in counts.items() if count}
        figures = {f"loss/{name}": value for name, value in terms.items()}
        figures |= {f"images_per_second/{name}": rate for name, rate in rates.items()}
        figures |= {f"left_out/{name}": count for name, count in left_out.items()}
        figures["learning_rate"] = self.updater.optimizer.param_groups[0]["lr"]
        if record.gradient_norm is not None:
            figures["gradient_norm"] = float(record.gradient_norm)
        track(figures, {}, self.step)
        parts = [f"{name[:5]} {value:.3g}" for name, value in terms.items()]
        parts += [f"{name} {rate:,.0f}/s" for name, rate in rates.items()]
        parts += [f"{count} {name.replace('_', '-')} left out" for name, count in left_out.items()]
        progress.update(task, note=" ".join(parts))
        self._load_seconds = self._wait_seconds = 0.0
        self._clock = time.monotonic()

    def _rates(self) -> dict[str, float]:
        """Measure images per second that the model alone and loading alone could do, since the last log: who starves
        whom."""
        images = self.config.saving.log_every * self.images_per_step
        loaders = 1 if isinstance(self.source, CachedFeatures) else max(1, self.config.images.workers)
        seconds = {
            "model": time.monotonic() - self._clock - self._wait_seconds,
            "data": self._load_seconds / loaders,
        }
        return {name: images / each for name, each in seconds.items() if each > 0}

    def _validate(self, validate: Validate | None, track: Track) -> None:
        """Measure the checkpoint that was saved last, unless that is done, and keep it if it is the best."""
        if validate is None or not self.awaits_validation:
            return
        better = False
        if self.ranks.is_first:
            state = _random_state()
            metric, pictures = validate(self.network.eval(), self.spec)
            _set_random_state(state)
            track({"validation": metric}, pictures, self.step)
            better = self.best is None or metric > self.best
            self.best = metric if better else self.best
        self.ranks.wait()
        better, self.best = self.ranks.gather_objects((better, self.best))[0]
        self.awaits_validation = False
        if better:
            self.save()
            if self.ranks.is_first:
                self.folder.checkpoints.keep_as_best(self.folder.checkpoints.files()[-1])


def _random_state() -> dict[str, Any]:
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() and torch.cuda.is_initialized() else None,
    }


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
