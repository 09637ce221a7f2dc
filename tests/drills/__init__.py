"""Faults, tried on a real training on two CPU cores: ``python -m tests.drills NAME``. Not collected by pytest."""
