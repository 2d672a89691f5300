"""What is counted, compiled and measured: commands ``python -m benchmarks.NAME`` that write into ``results/``."""
