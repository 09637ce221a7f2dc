"""Checks and measurements on a single card, or small ones on a CPU: ``python -m benchmarks.gpu``."""
