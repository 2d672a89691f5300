"""Becomes `python -m MODULE ...` or `python FILE ...` in a process that has imported the package already.

What conftest.py forks runs this file and gives it the command, the environment and files for stdout and stderr.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import warnings
from pathlib import Path

import torch

command, environment, output, errors = globals()["given"]
os.environ.clear()
os.environ.update(environment)
for stream, file in ((sys.stdout, output), (sys.stderr, errors)):
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
# What a new process would have found when it started.
multiprocessing.set_start_method(None, force=True)
if "OMP_NUM_THREADS" in environment:
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
if command[0] == "-m":
    warnings.filterwarnings("ignore", ".* found in sys.modules", RuntimeWarning)
    sys.argv = command[1:]
    runpy.run_module(command[1], run_name="__main__", alter_sys=True)
else:
    sys.argv = command
    sys.path[:0] = [str(Path(command[0]).parent), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    runpy.run_path(command[0], run_name="__main__")
