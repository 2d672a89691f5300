"""The method: inter-intra regulation of two CAMs, as a function and as a module.

What follows is this project's reconstruction of "Weakly Supervised Object Localization with Inter-Intra Regulated
CAMs" (arXiv:1911.07160): the paper's own formulas were not available, and none are claimed here.
"""

from __future__ import annotations

from typing import Any, NamedTuple, overload

from torch import Tensor, nn

from iir_fast.gather import gather_rows
from iir_fast.head import HeadOutput
from iir_fast.kernels import RegionDescriptors, RegulatedCAMs, inter_intra, masked_pool, regulate
from iir_fast.kernels.contract import check_integer_vector, check_range
from iir_fast.kernels.inter_intra import REGULATIONS, Regulation
from iir_fast.kernels.regulate import TEMPERATURE

CERTAINTY_FACTOR = 8.0
"""Of `IIRLoss.weight_of`: the loss counts in full from an eighth of the way between chance and certainty on."""


class IIRTerms(NamedTuple):
    """The loss of a batch and everything it was made of."""

    loss: Tensor
    """Scalar: intra_weight * intra + inter_weight * inter."""
    intra: Tensor
    """Scalar: the regulation of the two CAMs, mean over samples."""
    inter: Tensor
    """Scalar: the inter-sample criterion, mean over all pairs of a class's descriptors, of both classifiers."""
    masks: Tensor
    """[B,2,H,W] in [0,1]: foreground masks of both classifiers."""
    maps: Tensor
    """[B,2,H,W] in [0,1]: normalized label CAMs."""
    thresholds: Tensor
    """[B,2]: where each map was cut."""
    descriptors: RegionDescriptors
    """foreground and background [B,2,C] of this rank's samples."""


def iir_loss(
    cam_a: Tensor,
    cam_b: Tensor,
    features: Tensor,
    labels: Tensor,
    thresholds: Tensor | None = None,
    *,
    intra_weight: float = 5.0,
    inter_weight: float = 5.0,
    regulation: Regulation = "dual",
    temperature: float = TEMPERATURE,
    gather: bool = False,
) -> IIRTerms:
    """Inter-intra regulation of two CAMs per sample.

    Args:
        cam_a: label CAMs [B,H,W], or class maps [B,K,H,W], of classifier A; floating.
        cam_b: the same of classifier B.
        features: [B,C,H,W], floating: the shared map that descriptors are pooled from.
        labels: int64 [B].
        thresholds: [B,2] in (0,1), or rounded to 0 or 1; None: each map's own mean.
        intra_weight: weight of the regulation of the two CAMs, at least 0.
        inter_weight: weight of the inter-sample criterion, at least 0.
        regulation: "dual" (adversarial where both classifiers claim a pixel, cooperative where both reject it)
            or "agreement" (the probability that the masks differ).
        temperature: width of the soft masks, in units of the normalized map.
        gather: compare descriptors across all ranks of the default process group. Every rank must pass the same
            number of samples; with DistributedDataParallel the gradients are those of the concatenated batch.

    Returns:
        IIRTerms. An empty batch gives zeros that are connected to the graph; an image that is alone in its class is
        compared under one classifier with itself under the other. A NaN or inf in the input gives NaN; features up
        to 1e17 and CAMs up to 1e37 in magnitude never do.

    Raises:
        TypeError, ValueError, IndexError: as the operators say, naming the argument.
    """
    _check_options("iir_loss", intra_weight, inter_weight, regulation)
    check_integer_vector("iir_loss", "labels", labels, len(features))
    if thresholds is not None:
        check_range("iir_loss", "thresholds", thresholds, 1)
    cam_a, cam_b = select_label_cam(cam_a, labels, "cam_a"), select_label_cam(cam_b, labels, "cam_b")
    regulated = regulate(cam_a, cam_b, thresholds, temperature)
    descriptors = masked_pool(features, regulated.masks)
    return _iir_loss(regulated, descriptors, labels, intra_weight, inter_weight, regulation, gather)


def _iir_loss(
    regulated: RegulatedCAMs,
    descriptors: RegionDescriptors,
    labels: Tensor,
    intra_weight: float,
    inter_weight: float,
    regulation: Regulation,
    gather: bool,
) -> IIRTerms:
    """Compute `iir_loss` of CAMs that are regulated already, and of the descriptors under their masks."""
    terms, masks, maps, thresholds = regulated
    foreground, background = descriptors
    if gather:
        foreground, background, labels = gather_rows(foreground), gather_rows(background), gather_rows(labels)
    loss, intra, inter = inter_intra(terms, foreground, background, labels, intra_weight, inter_weight, regulation)
    return IIRTerms(loss, intra, inter, masks, maps, thresholds, descriptors)


def _check_options(name: str, intra_weight: float, inter_weight: float, regulation: Regulation) -> None:
    for weight, value in (("intra_weight", intra_weight), ("inter_weight", inter_weight)):
        if not value >= 0:
            raise ValueError(f"{name}: {weight} is {value}; accepted is a number of at least 0.")
    if regulation not in REGULATIONS:
        raise ValueError(f"{name}: regulation is {regulation!r}; accepted are {', '.join(REGULATIONS)}.")


def select_label_cam(cam: Tensor, labels: Tensor, name: str) -> Tensor:
    """Pick the label's map [B,H,W] out of class maps [B,K,H,W]; label CAMs [B,H,W] pass through."""
    if cam.dim() == 3:
        return cam
    if cam.dim() != 4:
        raise ValueError(
            f"iir_loss: {name} has shape {list(cam.shape)}; accepted are label CAMs [B,H,W] and class maps [B,K,H,W]."
        )
    check_range("iir_loss", "labels", labels, cam.shape[1] - 1)
    index = labels.view(-1, 1, 1, 1).expand(-1, 1, *cam.shape[2:])
    return cam.gather(1, index).squeeze(1)


class IIRLoss(nn.Module):
    """Inter-intra regulation as a drop-in loss: add it to the two classifiers' cross-entropies.

    Example:
        >>> out = head(features, labels)
        >>> loss = F.cross_entropy(out.logits_a, labels) + F.cross_entropy(out.logits_b, labels)
        >>> loss = loss + loss_fn.weight_of(out) * loss_fn(out)

    Multiply it by `loss_fn.weight_of(out)`, and it waits for the classifiers. The defaults were chosen by experiment.

    Args:
        intra_weight: weight of the regulation of the two CAMs.
        inter_weight: weight of the inter-sample criterion.
        regulation: "dual" or "agreement", as in `iir_fast.functional.iir_loss`.
        temperature: width of the soft masks, in units of the normalized map; above 0.
        gather: compare images across all ranks of the default process group.

    Raises:
        ValueError: a weight is negative, `regulation` is neither of the two, or `temperature` is not positive.
    """

    def __init__(
        self,
        intra_weight: float = 5.0,
        inter_weight: float = 5.0,
        regulation: Regulation = "dual",
        temperature: float = TEMPERATURE,
        gather: bool = False,
    ) -> None:
        super().__init__()
        _check_options("IIRLoss", intra_weight, inter_weight, regulation)
        if not temperature > 0:
            raise ValueError(f"IIRLoss: temperature is {temperature}; accepted is a number above 0.")
        self.intra_weight = intra_weight
        self.inter_weight = inter_weight
        self.regulation: Regulation = regulation
        self.temperature = temperature
        self.gather = gather

    @overload
    def terms(self, cam_a: HeadOutput, /) -> IIRTerms: ...

    @overload
    def terms(
        self, cam_a: Tensor, cam_b: Tensor, features: Tensor, labels: Tensor, thresholds: Tensor | None = None
    ) -> IIRTerms: ...

    def terms(
        self,
        cam_a: HeadOutput | Tensor,
        cam_b: Tensor | None = None,
        features: Tensor | None = None,
        labels: Tensor | None = None,
        thresholds: Tensor | None = None,
    ) -> IIRTerms:
        """Compute the loss with everything it was made of: what a training loop logs and feeds to the class prototypes.

        Args:
            cam_a: what a DualCAMHead returned for the labels, and nothing else; or of any other head label CAMs
                [B,H,W], or class maps [B,K,H,W], of classifier A, floating.
            cam_b: the same of classifier B.
            features: [B,C,H,W], floating: the shared map.
            labels: int64 [B].
            thresholds: [B,2] in (0,1); None: each map's own mean.

        Returns:
            IIRTerms.

        Raises:
            TypeError, ValueError, IndexError: as `iir_fast.functional.iir_loss`; TypeError: an argument is missing, or
                is given beside a head's output.
        """
        weights = self.intra_weight, self.inter_weight, self.regulation, self.gather
        if isinstance(cam_a, HeadOutput):
            if any(each is not None for each in (cam_b, features, labels, thresholds)):
                raise TypeError("IIRLoss: arguments follow the head's output; accepted is the output alone.")
            # The head's masks have the usual temperature.
            out, regulated, descriptors = cam_a, cam_a.regulated, cam_a.descriptors
            if self.temperature != TEMPERATURE:
                regulated = regulate(out.cam_a, out.cam_b, out.thresholds, self.temperature)
                descriptors = masked_pool(out.features, regulated.masks)
            return _iir_loss(regulated, descriptors, out.labels, *weights)
        if cam_b is None or features is None or labels is None:
            raise TypeError(
                "IIRLoss: cam_b, features or labels are missing; accepted are cam_a, cam_b, features, labels and, if "
                "wanted, thresholds, or what a DualCAMHead returned."
            )
        return iir_loss(
            cam_a,
            cam_b,
            features,
            labels,
            thresholds,
            intra_weight=self.intra_weight,
            inter_weight=self.inter_weight,
            regulation=self.regulation,
            temperature=self.temperature,
            gather=self.gather,
        )

    @overload
    def forward(self, cam_a: HeadOutput, /) -> Tensor: ...

    @overload
    def forward(
        self, cam_a: Tensor, cam_b: Tensor, features: Tensor, labels: Tensor, thresholds: Tensor | None = None
    ) -> Tensor: ...

    def forward(self, *arguments: Any, **named: Any) -> Tensor:
        """Compute the loss of what a DualCAMHead returned, or of `(cam_a, cam_b, features, labels[, thresholds])`.

        Args:
            *arguments: as `terms`.
            **named: as `terms`.

        Returns:
            Scalar, float32, or float64 when an input is.

        Raises:
            TypeError, ValueError, IndexError: as `terms`.
        """
        return self.terms(*arguments, **named).loss

    def weight_of(self, out: HeadOutput) -> Tensor:
        """Weigh the loss by how sure the classifiers are of the labels already, so that it does not keep them from
        learning: CAMs of classifiers that know nothing yet are not worth regulating.

        Args:
            out: what a DualCAMHead returned for the labels.

        Returns:
            Scalar in [0,1] without gradient: 8 times the batch's mean `HeadOutput.certainty`, 1 at the most; with
            `gather` the mean over all ranks. The formula is ours; `docs/ablation.md` says on what it was chosen.
        """
        certainty = gather_rows(out.certainty) if self.gather else out.certainty
        return (CERTAINTY_FACTOR * certainty.sum() / max(len(certainty), 1)).clamp(0, 1)

    def extra_repr(self) -> str:
        return (
            f"intra_weight={self.intra_weight}, inter_weight={self.inter_weight}, regulation={self.regulation!r}, "
            f"temperature={self.temperature}, gather={self.gather}"
        )
