"""From images of any map to boxes, with a trained network or a classifier as it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from os import PathLike
from typing import NamedTuple, NoReturn, TypeAlias, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from iir_fast.app.threads import in_order
from iir_fast.data import BrokenImageError, Transform, find_images, image_transform, read_image, to_rgb
from iir_fast.evaluation import (
    FixedThreshold,
    Refinement,
    check_refinement,
    fit_image,
    own_threshold,
    refine,
    resize_scoremap,
)
from iir_fast.localization.outline import NOWHERE, Outline, find_outlines
from iir_fast.localization.results import FoundObject, ImageResult, Results
from iir_fast.models import ClassifierSpec, IIRNetwork, Localizer, MapName, NetworkSpec
from iir_fast.names import DEFAULT_REFINEMENT

ImageInput: TypeAlias = str | PathLike[str] | Image.Image | NDArray[np.uint8]
"""A file, a folder or a glob as `find_images` takes them, a PIL image, or uint8 [H,W] or [H,W,3], RGB."""
SINGLE = (str, PathLike, Image.Image, np.ndarray)
"""Types of one input."""


def _raise(error: BrokenImageError) -> NoReturn:
    raise error


class _Input(NamedTuple):
    """An image before anything is found in it."""

    image: ImageResult
    tensor: Tensor
    """What the network reads of it."""
    picture: NDArray[np.uint8] | None
    """The image at the size of a score map, where one is to be refined by it."""


@dataclass(frozen=True)
class Predictor:
    """A network with all that it takes to use it; `iir_fast.load` makes one, and `iir_fast.pretrained`.

    Attributes:
        network: in eval mode.
        spec: of the network: class names, size of its input; of a Localizer a ClassifierSpec.
        thresholds: for each map, the threshold of the model's last evaluation.

    Raises:
        TypeError: network and spec do not go together.
    """

    network: IIRNetwork | Localizer
    spec: NetworkSpec | ClassifierSpec
    thresholds: Mapping[MapName, FixedThreshold] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.network, Localizer) != isinstance(self.spec, ClassifierSpec):
            raise TypeError(
                f"spec is a {type(self.spec).__name__}, and network a {type(self.network).__name__}; accepted are a "
                "ClassifierSpec of a Localizer, and a NetworkSpec of an IIRNetwork."
            )

    def __repr__(self) -> str:
        return (
            f"Predictor({self.spec.backbone}, {len(self.spec.classes)} classes, maps: {', '.join(self.network.maps)})"
        )

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the channels that images in [0, 1] are normalized with."""
        if isinstance(self.spec, ClassifierSpec):
            return self.spec.mean, self.spec.std
        backbone = cast(IIRNetwork, self.network).backbone
        return backbone.mean, backbone.std

    def threshold(
        self, map: MapName | None = None, refinement: Refinement = DEFAULT_REFINEMENT
    ) -> FixedThreshold | None:
        """Tell where maps are cut unless something else is asked for, and on what that was chosen.

        Args:
            map: which localization map; None: the network's default.
            refinement: how its score maps are refined; evaluations' thresholds are of maps that are not.

        Returns:
            None: each image at its own, `iir_fast.evaluation.own_threshold`, which no box has chosen.
        """
        return self.thresholds.get(map or self.network.maps[0]) if refinement == "none" else None

    @overload
    def localize(  # type: ignore[overload-overlap]  # a text is texts, too
        self,
        images: ImageInput,
        map: MapName | None = None,
        threshold: float | None = None,
        *,
        refinement: Refinement = ...,
        top_k: int = ...,
        max_objects: int = ...,
        without_object: Collection[str] = ...,
        batch_size: int = ...,
        on_broken: Callable[[BrokenImageError], None] = ...,
    ) -> Results: ...

    @overload
    def localize(
        self,
        images: Iterable[ImageInput],
        map: MapName | None = None,
        threshold: float | None = None,
        *,
        refinement: Refinement = ...,
        top_k: int = ...,
        max_objects: int = ...,
        without_object: Collection[str] = ...,
        batch_size: int = ...,
        on_broken: Callable[[BrokenImageError], None] = ...,
    ) -> Iterator[ImageResult]: ...

    def localize(
        self,
        images: ImageInput | Iterable[ImageInput],
        map: MapName | None = None,
        threshold: float | None = None,
        *,
        refinement: Refinement = DEFAULT_REFINEMENT,
        top_k: int = 1,
        max_objects: int = 1,
        without_object: Collection[str] = (),
        batch_size: int = 32,
        on_broken: Callable[[BrokenImageError], None] = _raise,
    ) -> Results | Iterator[ImageResult]:
        """Find the objects of the most probable classes in each image.

        A box is that of the largest contour of its class's own map, as the WSOL protocol has it, and with `max_objects`
        of the next ones down to a tenth of its area. Images are read by threads, a batch ahead of the network. Of
        several inputs neither images nor results are kept, so that memory does not grow with their number; a folder
        may be the only one, `["photos/"]`.

            predictor = iir_fast.load("runs/mine")
            for found in predictor.localize(["photos/"]):
                print(found.path, found.objects[0].label, found.objects[0].box)
            predictor.localize("holiday.jpg")[0].plot()

        Args:
            images: one, or any number of them. A file of another format than the suffixes of images say, or a folder
                or a glob without any image, is an error.
            map: which localization map; None: the network's default, the first of its `maps`.
            threshold: tau in [0,1), share of the map's maximum above which a pixel belongs to the object; None: as
                `threshold(map, refinement)` says.
            refinement: how score maps are refined by their images, as `iir_fast.evaluation.refine` has it.
            top_k: how many classes to localize in each image.
            max_objects: how many objects of each class at most.
            without_object: names of classes that have no object, such as "normal" of an inspection: they get a box
                without area, and their probability says how sure it is that there is nothing.
            batch_size: images that the network reads at once.
            on_broken: called with the error of each image that cannot be read; if it returns, the image is left out.
                By default the error is raised.

        Returns:
            One result per image, in the images' order: for one input, be it a folder, a list that a notebook shows; for
            several an iterator.

        Raises:
            BrokenImageError: an image cannot be read; the message names it.
            FileNotFoundError: as `find_images`.
            ValueError: as `find_images`, or a number is out of its range, or the network makes NaN of an image.
        """
        classes = len(self.spec.classes)
        if not 1 <= top_k <= classes:
            raise ValueError(f"top_k is {top_k}; accepted are 1 to {classes}, the number of the model's classes.")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; accepted is 1 or more.")
        if max_objects < 1:
            raise ValueError(f"max_objects is {max_objects}; accepted is 1 or more.")
        if unknown := sorted(set(without_object) - set(self.spec.classes)):
            known = ", ".join(self.spec.classes[:10]) + (", ..." if classes > 10 else "")
            raise ValueError(f"without_object names {', '.join(unknown)}; the model's classes are {known}.")
        check_refinement(refinement)
        map = map or self.network.maps[0]
        if threshold is None and (chosen := self.threshold(map, refinement)):
            threshold = chosen.value
        if threshold is not None and not 0 <= threshold < 1:
            raise ValueError(f"threshold is {threshold}; a number in [0, 1) is accepted.")
        inputs = self._read(_single_images(images), refinement != "none", batch_size, on_broken)
        outline = partial(_outline, frozenset(without_object), threshold, refinement, max_objects)
        found = self._localize(inputs, map, outline, top_k, batch_size)
        return Results(found) if isinstance(images, SINGLE) else found

    def _read(
        self, images: Iterable[ImageInput], refined: bool, ahead: int, on_broken: Callable[[BrokenImageError], None]
    ) -> Iterator[_Input]:
        transform = image_transform(self.spec.image_size, *self.normalization)

        def read(numbered: tuple[int, ImageInput]) -> _Input | BrokenImageError:
            try:
                return _read_input(transform, refined, *numbered)
            except BrokenImageError as error:
                return error

        with closing(in_order(read, enumerate(images), ahead)) as inputs:
            for each in inputs:
                if isinstance(each, BrokenImageError):
                    on_broken(each)
                else:
                    yield each

    def _localize(
        self,
        inputs: Iterator[_Input],
        map: MapName,
        outline: Callable[[tuple[_Input, str, Tensor]], list[Outline]],
        top_k: int,
        batch_size: int,
    ) -> Iterator[ImageResult]:
        while batch := list(islice(inputs, batch_size)):
            tensors = torch.stack([each.tensor for each in batch]).to(next(self.network.parameters()).device)
            ranked = self.network.localize_top(tensors, top_k, map)
            probabilities = ranked[0].logits.double().softmax(dim=1).cpu()
            _check_finite(batch, probabilities)
            objects: list[list[FoundObject]] = [[] for _ in batch]
            for found in ranked:
                maps, labels = found.maps[map].float().cpu(), found.labels.tolist()
                names = [self.spec.classes[label] for label in labels]
                outlines = in_order(outline, zip(batch, names, maps, strict=True), len(batch))
                for row, contours in enumerate(outlines):
                    found_class = names[row], labels[row], float(probabilities[row, labels[row]])
                    for box, polygon in contours:
                        objects[row].append(FoundObject(*found_class, box, maps[row], polygon))
            for (image, *_), each in zip(batch, objects, strict=True):
                yield replace(image, objects=tuple(each))


def _outline(
    without_object: Collection[str],
    threshold: float | None,
    refinement: Refinement,
    max_objects: int,
    found: tuple[_Input, str, Tensor],
) -> list[Outline]:
    """Outline the objects of one class in an image by the class's map [h,w]."""
    (image, _, picture), name, small = found
    if name in without_object:
        return [NOWHERE]
    scoremap = resize_scoremap(small)
    if picture is not None:
        scoremap = refine(scoremap, picture, refinement)
    tau = own_threshold(scoremap, refinement) if threshold is None else threshold
    return find_outlines(scoremap, tau, image.size, max_objects)


def _check_finite(batch: Sequence[_Input], probabilities: Tensor) -> None:
    for (image, *_), is_finite in zip(batch, probabilities.isfinite().all(dim=1).tolist(), strict=True):
        if not is_finite:
            name = image.path or f"number {image.index}"
            raise ValueError(f"the network makes NaN of the image {name}: its weights are broken, or too large.")


def _single_images(images: ImageInput | Iterable[ImageInput]) -> Iterator[ImageInput]:
    for each in [images] if isinstance(images, SINGLE) else images:
        if isinstance(each, str | PathLike):
            yield from find_images([each])
        else:
            yield each


def _read_input(transform: Transform, refined: bool, index: int, image: ImageInput) -> _Input:
    path = None
    if isinstance(image, str | PathLike):
        path = str(image)
        picture = read_image(path)
    else:
        try:
            picture = to_rgb(image if isinstance(image, Image.Image) else _from_array(image))
        except ValueError as error:
            raise BrokenImageError(f"number {index}", str(error)) from error
    result = ImageResult(index, path, picture.size, (), None if path else picture)
    return _Input(result, transform(picture), fit_image(picture) if refined else None)


def _from_array(array: object) -> Image.Image:
    if not isinstance(array, np.ndarray):
        raise ValueError(f"it is a {type(array).__name__}; a path, a PIL image or a NumPy array is accepted.")
    if array.dtype != np.uint8 or array.shape[2:] not in ((), (3,)) or array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"it is {array.dtype} {list(array.shape)}; uint8 [H,W] or [H,W,3] is accepted.")
    return Image.fromarray(array)
