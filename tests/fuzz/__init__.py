"""Drives every reader and every command with generated bad input: `python -m tests.fuzz --help`."""
