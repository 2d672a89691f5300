"""From a configuration to its method."""

from __future__ import annotations

from iir_fast.loss import IIRLoss
from iir_fast.methods import ADL, CAM, IIR, SPG, ACoL, CutMix, HaS, Method
from iir_fast.models import IIRLocalizer
from iir_fast.training.config import TrainConfig


def create_method(config: TrainConfig, model: IIRLocalizer) -> Method:
    """The configured method, for that localizer; its own layers, if any, draw from torch's default generator.

    Raises:
        ValueError: an option is out of its range; the message names method and option.
    """
    if config.method == "iir":
        return IIR(
            IIRLoss(
                config.intra_weight,
                config.inter_weight,
                config.regulation,
                config.temperature,
                config.hard,
                # Nothing to gather where one process trains.
                gather=True,
            )
        )
    if config.method == "has":
        return HaS(config.has_grid, config.has_rate)
    if config.method == "spg":
        return SPG(model.head, config.spg_high, config.spg_low)
    if config.method == "adl":
        return ADL(config.adl_rate, config.adl_threshold)
    if config.method == "cutmix":
        return CutMix(config.cutmix_beta, config.cutmix_rate)
    return ACoL() if config.method == "acol" else CAM()
