"""The ladder: how a cliff's privileged rollouts are divided among several sources.

A rung is one source. The next, more telling one is tried only for a cliff of which no rollout of the rungs before it
was solved and kept, so a cliff may have fewer rollouts than it could, never more.
"""

from __future__ import annotations


def rung_sizes(n: int, rungs: int) -> list[int]:
    """How many of ``n`` rollouts each rung may have: as evenly as possible, and the later rungs have one more.

    Example:
        ``rung_sizes(5, 3) == [1, 2, 2]``

    Raises:
        ValueError: there is no rung.
    """
    if rungs < 1:
        raise ValueError("a ladder needs a rung")
    each, more = divmod(n, rungs)
    return [each + (rung >= rungs - more) for rung in range(rungs)]
