"""dual_cam on CPU tensors: compiled host kernels, and ATen where these do not serve."""

from __future__ import annotations

from functools import partial

from iir_fast.kernels.dual_cam import closed_form
from iir_fast.kernels.label_cam import native as label_cam
from iir_fast.kernels.masked_pool import native as masked_pool
from iir_fast.kernels.regulate import native as regulate

_ROOMS = closed_form.Rooms.on(label_cam, regulate, masked_pool)
forward = partial(closed_form.forward, _ROOMS)
backward = partial(closed_form.backward, _ROOMS)
