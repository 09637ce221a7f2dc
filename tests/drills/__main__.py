"""Faults, tried on a real training: what ends, how soon, and what is lost.

    python -m tests.drills NAME ...

Each takes one to three starts of the CPU stack (minutes) and ends by itself. Run one at a time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from tests.drills import deaths, folders, nodes, rewards

DRILLS: dict[str, Callable[[], None]] = {
    drill.__name__: drill
    for drill in (
        deaths.engine_killed,
        deaths.engine_killed_before_sync,
        deaths.server_killed,
        deaths.agent_worker_killed,
        deaths.actor_killed,
        deaths.driver_killed,
        deaths.sigterm,
        rewards.reward_hangs,
        rewards.reward_raises,
        rewards.reward_nan,
        folders.two_runs_one_folder,
        folders.checkpoint_cut_short,
        folders.disk_full,
        nodes.two_nodes,
    )
}


def main() -> None:
    """Parse the command line and run the drills."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=DRILLS, metavar="NAME", help=", ".join(DRILLS))
    for name in parser.parse_args().names:
        print(f"[drill] {name}: {DRILLS[name].__doc__}", flush=True)
        DRILLS[name]()


if __name__ == "__main__":
    main()
