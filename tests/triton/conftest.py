"""Triton decides when a kernel is defined how it will run, so what is under interpreted/ needs a process of its own."""

from __future__ import annotations

import os

IN_ONE_PROCESS, IN_ANOTHER = (
    ["test_interpreter.py", "test_resources.py", "test_sectors.py", "test_variants.py"],
    ["interpreted"],
)
collect_ignore = IN_ONE_PROCESS if os.environ.get("TRITON_INTERPRET") == "1" else IN_ANOTHER
