"""What is counted, compiled and measured: ``pytest benchmarks/`` and commands ``python -m benchmarks.NAME``."""
