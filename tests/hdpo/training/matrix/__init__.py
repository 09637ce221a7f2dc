"""Every pair of settings, exact: see ``cases.py``, and run ``python -m tests.hdpo.training.matrix``."""
