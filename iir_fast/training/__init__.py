"""Training: configuration, feature cache, the loop and the folder of a run."""

from iir_fast.extras import needs_system

with needs_system("iir_fast.training"):
    from iir_fast.training.config import TrainConfig
    from iir_fast.training.loop import TrainResult, frozen_features, pick_device, train
    from iir_fast.training.options import from_options, read_yaml
    from iir_fast.training.run import Interrupted, NonFiniteLoss, Validate
    from iir_fast.training.run_folder import RunFolder, WhenThere

__all__ = [
    "Interrupted",
    "NonFiniteLoss",
    "RunFolder",
    "TrainConfig",
    "TrainResult",
    "Validate",
    "WhenThere",
    "from_options",
    "frozen_features",
    "pick_device",
    "read_yaml",
    "train",
]
