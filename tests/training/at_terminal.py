"""`iir-fast ARGUMENTS` at a terminal of its own, or as under nohup: python at_terminal.py TERMINAL|nohup ARGUMENTS."""

from __future__ import annotations

import os
import signal
import sys

from iir_fast.app.cli import main

if __name__ == "__main__":
    terminal, arguments = sys.argv[1], sys.argv[2:]
    if terminal == "nohup":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        # A session that has no terminal takes the first one that it opens.
        os.setsid()
        os.dup2(os.open(terminal, os.O_RDWR), 2)
    main(arguments)
