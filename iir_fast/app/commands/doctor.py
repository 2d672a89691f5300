"""`iir-fast doctor`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from rich.console import Console


@dataclass(frozen=True)
class Doctor:
    """Print versions, devices and the backend each runs; check every operator against the reference on a device."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Which device to check."""

    def run(self) -> None:
        from iir_fast.app.doctor import describe, examine, tabulate_checks
        from iir_fast.training import pick_device

        device = pick_device(self.device)
        print(*describe(), sep="\n")
        checks = list(examine(device))
        Console().print(tabulate_checks(checks, device))
        faults = [f"{check.operator}, {check.setting}: {check.fault}." for check in checks if check.fault]
        if faults:
            print(*faults, sep="\n")
            sys.exit(1)
