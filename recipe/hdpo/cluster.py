"""Is this Ray cluster ready for a training on several nodes?

    python -m recipe.hdpo.cluster --nodes 2 --gpus-per-node 8 --shared /shared/checkpoints --paths /shared/data

The launch scripts of several nodes ask it before they start: whether enough nodes have joined with free accelerators,
whether every node has the same packages, and whether it sees the folders that all must share.
"""

from __future__ import annotations

import argparse
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from recipe.hdpo import __version__

PACKAGES = ("verl", "ray", "torch", "transformers", "vllm", "sglang")
MARK = ".hdpo_cluster_check"
ANSWER_WITHIN = 120.0


@dataclass(frozen=True)
class Node:
    """What a node has.

    Attributes:
        address: its IP address, as Ray knows it.
        gpus: accelerators that it has declared, and ``free``: those that nothing holds.
        versions: of the packages that training needs, by name; None for one that is not installed. Empty where the
            node could not answer, and ``trouble`` then says why.
        missing: folders and files that it does not see.
        trouble: why it could not answer.
    """

    address: str
    gpus: float
    free: float
    versions: Mapping[str, str | None]
    missing: tuple[str, ...] = ()
    trouble: str | None = None


def look(paths: Iterable[str], marks: Iterable[str]) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """Run on a node: its versions, and which of the paths, and of the marks in shared folders, it does not see."""
    versions: dict[str, str | None] = {"verl-recipe-hdpo": __version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    missing = [path for path in paths if not Path(path).exists()]
    missing += [str(Path(mark).parent) for mark in marks if not Path(mark).exists()]
    return versions, tuple(missing)


def problems(nodes: list[Node], wanted: int, gpus_per_node: float, running: bool = False) -> list[str]:
    """What keeps a training from running on these nodes; empty where nothing does.

    Args:
        nodes: those that have joined; the first is this one.
        wanted: how many with ``gpus_per_node`` accelerators the training needs.
        running: whether another training of verl uses the cluster.
    """
    found = []
    able = [node for node in nodes if node.gpus >= gpus_per_node]
    if len(able) < wanted:
        seen = ", ".join(f"{node.address} ({node.gpus:g})" for node in nodes)
        found.append(
            f"{wanted} nodes of {gpus_per_node:g} accelerators are needed; these joined: {seen}. On each other "
            f"node run `ray start --address={nodes[0].address}:6379`, --num-gpus=N where Ray does not see its cards"
        )
    elif len([node for node in able if node.free >= gpus_per_node]) < wanted:
        held = ", ".join(f"{node.address} ({node.free:g} of {node.gpus:g} free)" for node in able)
        found.append(f"accelerators are held by something else on this Ray cluster: {held}. `ray status` shows it")
    if running:
        found.append(
            "another training runs on this Ray cluster, and TransferQueue's actors have fixed names: wait until "
            "it has ended, or use another one"
        )
    for node in nodes:
        if node.trouble is not None:
            found.append(f"{node.address} could not answer, so HDPO may not be installed on it: {node.trouble}")
        if node.missing:
            found.append(
                f"{node.address} does not see {', '.join(node.missing)}: put it on a disk that all nodes share, under "
                "the same absolute path"
            )
        if node.versions and (differing := _differing(nodes[0].versions, node.versions)):
            found.append(f"{node.address} has other packages than {nodes[0].address}: {differing}. Install the same")
    return found


def _differing(here: Mapping[str, str | None], there: Mapping[str, str | None]) -> str:
    return ", ".join(
        f"{name} {there.get(name) or 'absent'}, not {version or 'absent'}"
        for name, version in here.items()
        if there.get(name) != version
    )


def ask(paths: list[str], shared: list[str]) -> list[Node]:
    """Ask every node that is alive; this one comes first. Ray must be initialised.

    Args:
        paths: must exist on every node.
        shared: folders that must be one and the same for all. A file is put into each for the time of the question.

    Raises:
        OSError: a shared folder cannot be made or written to here.
    """
    marks = [Path(folder) / f"{MARK}.{uuid.uuid4().hex}" for folder in shared]
    try:
        for mark in marks:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        free: Mapping[str, Mapping[str, float]] = _free_by_node()
        here = ray.get_runtime_context().get_node_id()
        alive = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"] != here)
        asked = [(node, _question(node["NodeID"], paths, [str(mark) for mark in marks])) for node in alive]
        return [_answer(node, question, free.get(node["NodeID"], {})) for node, question in asked]
    finally:
        for mark in marks:
            mark.unlink(missing_ok=True)


def _free_by_node() -> Mapping[str, Mapping[str, float]]:
    from ray._private.state import available_resources_per_node

    return available_resources_per_node()


def _question(node_id: str, paths: list[str], marks: list[str]) -> Any:
    pinned = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(look).options(num_cpus=0, max_retries=0, scheduling_strategy=pinned).remote(paths, marks)


def _answer(node: dict[str, Any], question: Any, free: Mapping[str, float]) -> Node:
    asked = Node(node["NodeManagerAddress"], node["Resources"].get("GPU", 0.0), free.get("GPU", 0.0), {})
    try:
        versions, missing = ray.get(question, timeout=ANSWER_WITHIN)
    except (RayError, TimeoutError) as error:
        return replace(asked, trouble=(str(error).strip().splitlines() or [type(error).__name__])[-1])
    return replace(asked, versions=versions, missing=missing)


def wait_for_nodes(wanted: int, gpus_per_node: float, seconds: float) -> None:
    """Nodes may still be joining: wait until there are enough, or the time is over."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        able = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("GPU", 0.0) >= gpus_per_node]
        if len(able) >= wanted:
            return
        time.sleep(1.0)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, ask the cluster, and leave with 1 and every problem where it is not ready."""
    parser = argparse.ArgumentParser(prog="python -m recipe.hdpo.cluster", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, required=True, help="nodes that the training needs (trainer.nnodes)")
    parser.add_argument("--gpus-per-node", type=int, default=8, help="accelerators of each (trainer.n_gpus_per_node)")
    parser.add_argument("--paths", nargs="*", default=[], metavar="PATH", help="files and folders that all must see")
    parser.add_argument("--shared", nargs="*", default=[], metavar="FOLDER", help="folders that must be one for all")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for nodes that are joining")
    args = parser.parse_args(argv)
    if relative := [path for path in (*args.paths, *args.shared) if not Path(path).is_absolute()]:
        parser.error(f"{', '.join(relative)}: a relative path is another one on every node; write it from /")
    try:
        ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RayError) as error:
        sys.exit(
            f"[hdpo] no Ray cluster answers ({error}): run `ray start --head` here, and `ray start "
            "--address=THIS_NODE:6379` on the others. Newer versions of Ray ask for a token: copy ~/.ray/auth_token of "
            "the head to every node, and set RAY_AUTH_MODE=token wherever RAY_ADDRESS or --address names the head"
        )
    try:
        wait_for_nodes(args.nodes, args.gpus_per_node, args.wait)
        nodes = ask(args.paths, args.shared)
        names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
        found = problems(nodes, args.nodes, args.gpus_per_node, any(n.startswith("TransferQueue") for n in names))
    except OSError as error:
        found = [f"{error}: name a folder that this node can write to"]
    finally:
        ray.shutdown()
    if found:
        sys.exit("\n".join(["[hdpo] the Ray cluster is not ready:", *(f"  - {problem}" for problem in found)]))
    print(f"[hdpo] {len(nodes)} nodes are ready: {', '.join(f'{n.address} ({n.gpus:g})' for n in nodes)}")


if __name__ == "__main__":
    main()
