"""dual_cam on Triton: the kernels of the operators that it is made of, and one gradient of a shared map."""

from __future__ import annotations

from functools import partial

from iir_fast.kernels.dual_cam import closed_form
from iir_fast.kernels.label_cam import triton as label_cam
from iir_fast.kernels.launch import recorded
from iir_fast.kernels.masked_pool import triton as masked_pool
from iir_fast.kernels.regulate import triton as regulate

_ROOMS = closed_form.Rooms.on(label_cam, regulate, masked_pool)
forward = recorded(partial(closed_form.forward, _ROOMS))
backward = recorded(partial(closed_form.backward, _ROOMS))
