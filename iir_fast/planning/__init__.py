"""What fits on a device: the memory of a training step, counted before it runs."""

from iir_fast.extras import needs_system

with needs_system("iir_fast.planning"):
    from iir_fast.planning.live_memory import LiveMemory
    from iir_fast.planning.memory_plan import (
        GIB,
        LargestBatch,
        MemoryPlan,
        TrainingSetup,
        largest_batch,
        plan,
        tabulate,
    )

__all__ = ["GIB", "LargestBatch", "LiveMemory", "MemoryPlan", "TrainingSetup", "largest_batch", "plan", "tabulate"]
