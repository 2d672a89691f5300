"""Classifiers that others have trained, ready to find what they know."""

from __future__ import annotations

from iir_fast.localization import Predictor
from iir_fast.models import create_classifier
from iir_fast.training import pick_device


def pretrained(name: str, device: str = "auto") -> Predictor:
    """Make a localizer of a timm classifier as it is: plain CAMs of its own classes, without any training.

        [found] = iir_fast.pretrained("tf_efficientnet_lite0").localize("holiday.jpg")

    Args:
        name: a timm model with a classifier, its weights from the package that carries them, if that is installed, or
            else timm's, which are downloaded. Which formula its maps have: `iir_fast.Localizer`.
        device: "auto", "cpu" or "cuda".

    Raises:
        ValueError: timm has no such model, or it has no classifier.
        RuntimeError: timm could not get its weights, or "cuda" was asked for and there is none.
    """
    localizer, spec = create_classifier(name)
    return Predictor(localizer.to(pick_device(device)), spec)
