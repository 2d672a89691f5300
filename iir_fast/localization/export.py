"""A trained predictor as one file that needs nothing of this package: torch.export or ONNX."""

from __future__ import annotations

import copy
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iir_fast.app.files import write_whole
from iir_fast.evaluation import PROTOCOL_SIZE
from iir_fast.kernels import backend
from iir_fast.localization.predictor import Predictor
from iir_fast.models import DEFAULT_MAP, MAPS, IIRNetwork, MapName

FORMATS = (".pt2", ".onnx")
ABOUT = "iir_fast.json"
OUTPUTS = ("logits", "labels", "scoremaps")


def export_network(predictor: Predictor, file: str | Path, map: MapName = DEFAULT_MAP) -> None:
    """Write a predictor's network as a graph of plain operations, which reads any number of images at once.

    input   `images`     float32 [B,3,S,S], S = `predictor.spec.image_size`: an RGB image resized to S x S (its aspect
                         ratio is not kept), in [0,1], minus the channels' mean, divided by their standard deviation
    outputs `logits`     float32 [B,K]
            `labels`     int64 [B], the most probable class
            `scoremaps`  float32 [B,224,224] in [0,1], that class's localization map; where `Predictor.localize`
                         resizes in float64 by OpenCV, a graph has torch's bicubic in float32, so that some pixels are
                         one of 255 levels off

    Beside the graph stands one JSON object with `classes`, `image_size`, `mean`, `std`, `map` and `threshold`, null
    where each map is cut at its own: under the name `iir_fast.json` among the extra files of a .pt2, and in the
    metadata of an .onnx.

    From a score map to a box, with this package:

        from iir_fast.evaluation import largest_box, own_threshold
        from iir_fast.localization import scale_box

        scoremap = scoremaps[i].astype("float64")
        tau = own_threshold(scoremap) if threshold is None else threshold
        box = scale_box(largest_box(scoremap, tau), (width, height))

    and without it: pixels of floor(255 scoremap) greater than floor(threshold * their maximum) are the object; find
    contours, take the bounding rectangle of the one with the largest area, and scale it from 224 x 224 to the image.

    Args:
        predictor: what is exported; it stays as it is.
        file: ends in .pt2 (read by `torch.export.load`) or in .onnx.
        map: which localization map; it is fixed in the file, and so are the class prototypes.

    Raises:
        ValueError: `file` ends in something else, `map` is unknown, or the network is a classifier under a Localizer.
        FileNotFoundError: the folder of `file` is not there.
        OSError: the file could not be written; what was there before still is.
        ModuleNotFoundError: ONNX is asked for, and onnx or onnxscript is not installed.
    """
    file = Path(file)
    check_export(file)
    if map not in MAPS:
        raise ValueError(f"map is {map!r}; accepted are {', '.join(MAPS)}.")
    network = predictor.network
    if not isinstance(network, IIRNetwork):
        raise ValueError("predictor holds a Localizer, whose maps need a gradient; accepted is one with an IIRNetwork.")
    spec, backbone = predictor.spec, network.backbone
    about = json.dumps(
        {
            "classes": spec.classes,
            "image_size": spec.image_size,
            "mean": backbone.mean,
            "std": backbone.std,
            "map": map,
            "threshold": chosen.value if (chosen := predictor.threshold(map, "none")) else None,
        }
    )
    graph = _trace(network, spec.image_size, map)
    if file.suffix == ".pt2":
        torch.export.save(graph, content := BytesIO(), extra_files={ABOUT: about})
        write_whole(file, content.getvalue())
    else:
        program: Any = torch.onnx.export(
            graph, input_names=["images"], output_names=OUTPUTS, dynamo=True, external_data=False, verbose=False
        )
        program.model.metadata_props[ABOUT] = about
        write_whole(file, program.model_proto.SerializeToString())


def check_export(file: Path) -> None:
    """Raise what `export_network` would because of its file, before a network is loaded for it."""
    if file.suffix not in FORMATS:
        raise ValueError(f"file is {file}; accepted are names that end in {' or '.join(FORMATS)}.")
    if not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"file is {file}, and there is no folder {file.parent}.")
    if file.suffix == ".onnx":
        _require_onnx()


class _Localizing(nn.Module):
    """Images to tensors alone: what can be exported."""

    def __init__(self, network: IIRNetwork, map: MapName) -> None:
        super().__init__()
        self.network = network
        self.map: MapName = map

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.network.localize(images, maps=(self.map,))
        return found.logits, found.labels, _resize(found.maps[self.map])


def _resize(maps: Tensor) -> Tensor:
    """Do nearly what `resize_scoremap` does by what can be exported, in the maps' dtype: [B,h,w] to [B,224,224]."""
    shape = (PROTOCOL_SIZE, PROTOCOL_SIZE)
    resized = F.interpolate(maps.unsqueeze(1), shape, mode="bicubic", align_corners=False).squeeze(1)
    low, high = resized.amin((1, 2), keepdim=True), resized.amax((1, 2), keepdim=True)
    lowest, highest = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    # False of a NaN, too.
    varies = (lowest < highest) & (highest - lowest < torch.inf)
    return torch.where(varies, (resized - low) / torch.where(varies, high - low, 1), 0)


def _trace(network: IIRNetwork, size: int, map: MapName) -> torch.export.ExportedProgram:
    # The writer of .pt2 files takes weights in channels_last for views of something larger, and warns of each.
    network = copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format).requires_grad_(False)
    # torch 2.9 reads every parameter of a .pt2 back as one to be trained, and results would hang on to a graph.
    for module in network.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, weight.detach())
    # Two images: a batch of one would be taken for a constant.
    images = torch.zeros(2, 3, size, size)
    batch = torch.export.Dim("batch", min=1)
    # The reference is plain PyTorch, where the other implementations are operators that only this package knows.
    with backend("reference"), torch.no_grad():
        graph = torch.export.export(_Localizing(network, map).eval(), (images,), dynamic_shapes=({0: batch},))
        # Writes out what is inside regions of no_grad and autocast, which are no plain operations.
        plain: torch.export.ExportedProgram = graph.run_decompositions({})
        return plain


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('export to ONNX needs onnx and onnxscript: pip install "iir-fast[export]"') from error
