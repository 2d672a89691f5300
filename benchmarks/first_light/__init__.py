"""The first minutes on a new machine: ``python -m benchmarks.first_light``, see ``__main__.py``."""
