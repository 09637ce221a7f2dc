"""verl's data rows: how they are built, checked and read, and the command that turns other files into them.

Imports pyarrow, the recipe's knobs and its reward, not verl.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m recipe.hdpo.data``, also installed as ``hdpo-data``."""
    from recipe.hdpo.data.command import main as run

    return run(argv)
