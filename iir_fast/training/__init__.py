"""Training: configuration, feature cache, the loop and the folder of a run."""

from iir_fast.app.interruption import Interrupted
from iir_fast.extras import needs_system

with needs_system("iir_fast.training"):
    from iir_fast.training.config import DEFAULT_METHOD, TrainConfig, flat_options, other_home, read_recipe
    from iir_fast.training.loading import open_data
    from iir_fast.training.loop import TrainResult, frozen_features, pick_device, train
    from iir_fast.training.options import from_options, read_yaml
    from iir_fast.training.parts import Execution, Images, Model, Optimization, Saving
    from iir_fast.training.run import NonFiniteLoss, Validate, Validated
    from iir_fast.training.run_folder import IfExists, RunFolder

__all__ = [
    "DEFAULT_METHOD",
    "Execution",
    "IfExists",
    "Images",
    "Interrupted",
    "Model",
    "NonFiniteLoss",
    "Optimization",
    "RunFolder",
    "Saving",
    "TrainConfig",
    "TrainResult",
    "Validate",
    "Validated",
    "flat_options",
    "from_options",
    "frozen_features",
    "open_data",
    "other_home",
    "pick_device",
    "read_recipe",
    "read_yaml",
    "train",
]
