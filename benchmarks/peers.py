"""What one would otherwise write: the whole step and the operators in PyTorch, as opponents of the package.

The step is two classifiers on a shared map with cross-entropies and IIR's loss (its defaults: dual regulation, mean
thresholds, temperature 0.1, weights 5 and 5). Both formulations compute what `DualCAMHead(hidden=None, class_mean=1)`
and `iir_loss` compute; `benchmarks.agreement` holds them to it before anything is timed. None guards against constant
maps or zero descriptors, which the package does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.1
INTRA_WEIGHT, INTER_WEIGHT = 5.0, 5.0
EPSILON = 1e-6


def step_with_class_maps(
    features: Tensor, weights: Tensor, biases: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Naive: class maps by 1x1 convolutions, as ACoL's head has it, and the loss on materialized masked features.

    Args:
        features: [B,C,H,W].
        weights: [2,K,C] of both classifiers.
        biases: [2,K].
        labels: int64 [B].

    Returns:
        Scalar, both cross-entropies plus IIR's loss, float32 or wider; and the class maps [B,K,H,W] of both
        classifiers, which such a head keeps for localization: they are alive while the loss goes backward.
    """
    dtype, wide = features.dtype, _wide(features)
    kernels = weights[:, :, :, None, None].to(dtype)
    maps_a = F.conv2d(features, kernels[0], biases[0].to(dtype))
    maps_b = F.conv2d(features, kernels[1], biases[1].to(dtype))
    loss = torch.zeros((), dtype=wide, device=features.device)
    for class_maps in (maps_a, maps_b):
        logits = F.adaptive_avg_pool2d(class_maps, 1).flatten(1)
        loss = loss + F.cross_entropy(logits.to(wide), labels)
    samples = torch.arange(len(labels), device=labels.device)
    map_a, mask_a = _normalize_and_cut(maps_a[samples, labels].to(wide))
    map_b, mask_b = _normalize_and_cut(maps_b[samples, labels].to(wide))
    adversarial = mask_a * mask_b * map_a * map_b
    cooperative = (1 - mask_a) * (1 - mask_b) * (map_a - map_b) ** 2
    descriptors = (_descriptors_of_masked_features(features, mask) for mask in (mask_a, mask_b))
    foreground, background = (torch.cat(each) for each in zip(*descriptors, strict=True))
    background = F.normalize(background, dim=1)
    inter = subgroup_similarity_by_differences(foreground, background + background.mean(dim=0), labels.repeat(2))
    loss = loss + INTRA_WEIGHT * (adversarial + cooperative).mean() + INTER_WEIGHT * inter
    return loss, maps_a.detach(), maps_b.detach()


def _normalize_and_cut(cam: Tensor) -> tuple[Tensor, Tensor]:
    """Normalized CAM and soft mask, both [B,H,W]."""
    low, high = cam.amin(dim=(1, 2), keepdim=True), cam.amax(dim=(1, 2), keepdim=True)
    normalized = (cam - low) / (high - low)
    threshold = normalized.mean(dim=(1, 2), keepdim=True)
    return normalized, torch.sigmoid((normalized - threshold) / TEMPERATURE)


def _descriptors_of_masked_features(features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Foreground and background [B,C] under one classifier's masks [B,H,W]."""
    selected = mask.unsqueeze(1)
    foreground = features * selected.to(features.dtype)
    background = features * (1 - selected).to(features.dtype)
    foreground_mean = foreground.sum(dim=(2, 3)).to(mask.dtype) / (selected.sum(dim=(2, 3)) + EPSILON)
    background_mean = background.sum(dim=(2, 3)).to(mask.dtype) / ((1 - selected).sum(dim=(2, 3)) + EPSILON)
    return foreground_mean, background_mean


def step_with_contractions(features: Tensor, weights: Tensor, biases: Tensor, labels: Tensor) -> Tensor:
    """Batched: the strongest eager formulation we know, without class maps and masked features.

    Two batched products read the map: one makes the label CAMs, the other the sums under all masks and complements,
    from which the pooled features of the logits follow without a further read.

    Args: as `step_with_class_maps`.

    Returns:
        The same scalar.
    """
    wide = _wide(features)
    cams = _project(features, weights[:, labels].transpose(0, 1)).to(wide)
    dual, masks = _dual(cams)
    sums, mass = _sums_under(features, masks)
    foreground, background = (each.flatten(0, 1) for each in (sums / (mass + EPSILON)).chunk(2, dim=1))
    pooled = (sums[:, 0] + sums[:, 2]) / cams.shape[2]
    logits = F.linear(pooled.to(weights.dtype), weights.flatten(0, 1), biases.flatten()).unflatten(1, weights.shape[:2])
    labels_of_both = labels.repeat_interleave(2)
    cross_entropies = 2 * F.cross_entropy(logits.flatten(0, 1), labels_of_both)
    background = F.normalize(background, dim=1)
    inter = subgroup_similarity(foreground, background + background.mean(dim=0), labels_of_both)
    return cross_entropies + INTRA_WEIGHT * dual.mean() + INTER_WEIGHT * inter


def label_cam(features: Tensor, weights: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """CAMs [B,2,H,W] of the labelled classes by one batched product, and pooled features [B,C]."""
    cams = _project(features, weights[:, labels].transpose(0, 1)).to(_wide(features))
    return cams.unflatten(2, features.shape[2:]), features.mean(dim=(2, 3)).to(_wide(features))


def regulate(cam_a: Tensor, cam_b: Tensor) -> tuple[Tensor, Tensor]:
    """Terms [B,2] (dual, agreement) and masks [B,2,H,W] of two CAMs [B,H,W]."""
    dual, masks = _dual(torch.stack((cam_a, cam_b), dim=1).flatten(2))
    mask_a, mask_b = masks.unbind(1)
    agreement = mask_a + mask_b - 2 * mask_a * mask_b
    return torch.stack((dual.mean(1), agreement.mean(1)), dim=1), masks.unflatten(2, cam_a.shape[1:])


def masked_pool(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Foreground and background descriptors [B,2,C] under masks [B,2,H,W], by one batched product."""
    sums, mass = _sums_under(features, masks.flatten(2))
    foreground, background = (sums / (mass + EPSILON)).chunk(2, dim=1)
    return foreground, background


def subgroup_similarity(foreground: Tensor, background: Tensor, groups: Tensor) -> Tensor:
    """The inter-sample criterion of descriptors [N,C] by their Gram matrix [N,N], which has all distances."""
    foreground, background = F.normalize(foreground, dim=1), F.normalize(background, dim=1)
    contrast = 1 - (foreground * background).sum(1)
    argument = 2 - 2 * foreground @ foreground.mT - contrast[:, None] - contrast
    same = _same_group(groups)
    return torch.where(same, F.softplus(argument), 0).sum() / same.sum().clamp(min=1)


def subgroup_similarity_by_differences(foreground: Tensor, background: Tensor, groups: Tensor) -> Tensor:
    """The same as naive has it: all differences [N,N,C]."""
    foreground, background = F.normalize(foreground, dim=1), F.normalize(background, dim=1)
    distances = (foreground[:, None] - foreground[None]).square().sum(dim=2)
    contrast = (foreground - background).square().sum(dim=1)
    same = _same_group(groups)
    pair_loss = F.softplus(distances - (contrast[:, None] + contrast[None]) / 2)
    return (pair_loss * same).sum() / same.sum().clamp(min=1)


def evidence_map(features: Tensor, vectors: Tensor) -> Tensor:
    """Unit features [B,C,H,W] projected on vectors [B,R,C]: product and pixel norms, without unit features."""
    norm = torch.linalg.vector_norm(features, dim=1, keepdim=True, dtype=_wide(features))
    return _project(features, vectors).unflatten(2, features.shape[2:]) / norm


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _project(features: Tensor, vectors: Tensor) -> Tensor:
    """[B,R,P]: features [B,C,H,W] along vectors [B,R,C], in the dtype of the features."""
    return torch.bmm(vectors.to(features.dtype), features.flatten(2))


def _sums_under(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Sums [B,2R,C] of the features under masks [B,R,P] and complements, and the masses [B,2R,1] of both."""
    regions = torch.cat((masks, 1 - masks), dim=1)
    sums = torch.bmm(regions.to(features.dtype), features.flatten(2).mT).to(masks.dtype)
    return sums, regions.sum(2, keepdim=True)


def _dual(cams: Tensor) -> tuple[Tensor, Tensor]:
    """The dual regulation of every pixel [B,P] and masks [B,2,P] of CAMs [B,2,P]."""
    # Not aminmax, of which torch 2.9 has no gradient.
    low, high = cams.amin(dim=2, keepdim=True), cams.amax(dim=2, keepdim=True)
    maps = (cams - low) / (high - low)
    masks = torch.sigmoid((maps - maps.mean(2, keepdim=True)) / TEMPERATURE)
    (map_a, map_b), (mask_a, mask_b) = maps.unbind(1), masks.unbind(1)
    return mask_a * mask_b * map_a * map_b + (1 - mask_a) * (1 - mask_b) * (map_a - map_b).square(), masks


def _same_group(groups: Tensor) -> Tensor:
    """[N,N]: whether two descriptors are a pair, that is two different ones of equal groups."""
    return (groups[:, None] == groups) & ~torch.eye(len(groups), dtype=torch.bool, device=groups.device)
