"""Runs `iir-fast ARGUMENTS` where no file may grow beyond so many bytes: python full_disk.py BYTES ARGUMENTS."""

from __future__ import annotations

import resource
import sys

from iir_fast.app.cli import main

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
    main(sys.argv[2:])
