"""Is a Ray cluster ready for several nodes: every problem is named with its node and its way out.

Ray is replaced here; the check of real clusters of one and of two nodes is in tests/drills/nodes.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from recipe.hdpo import cluster
from recipe.hdpo.cluster import Node, look, main, problems

VERSIONS = {"verl-recipe-hdpo": "1.0", "verl": "0.9.1", "vllm": None}
HEAD = Node("10.0.0.1", gpus=8, free=8, versions=VERSIONS)
OTHER = replace(HEAD, address="10.0.0.2")


def test_a_cluster_with_all_it_needs_has_no_problem() -> None:
    assert problems([HEAD, OTHER], 2, 8) == []
    # A head without accelerators, as many clusters have, is not one of the nodes that train.
    assert problems([replace(HEAD, gpus=0, free=0), OTHER, replace(OTHER, address="10.0.0.3")], 2, 8) == []


def test_too_few_nodes_are_counted_with_what_each_has_and_how_others_join() -> None:
    (found,) = problems([HEAD, replace(OTHER, gpus=4, free=4)], 2, 8)
    assert "2 nodes of 8" in found and "10.0.0.2 (4)" in found and "ray start --address=10.0.0.1:6379" in found


def test_held_accelerators_and_another_training_are_told_apart_from_missing_ones() -> None:
    held, other = problems([HEAD, replace(OTHER, free=2)], 2, 8, running=True)
    assert "10.0.0.2 (2 of 8 free)" in held and "ray status" in held
    assert "another training runs" in other


@pytest.mark.parametrize("version", ["0.9.0", None])
def test_packages_that_differ_are_named_with_both_versions(version: str | None) -> None:
    (found,) = problems([HEAD, replace(OTHER, versions={**VERSIONS, "verl": version})], 2, 8)
    assert f"verl {version or 'absent'}, not 0.9.1" in found and "10.0.0.2" in found and "vllm" not in found


def test_a_path_that_a_node_does_not_see_and_a_node_that_cannot_answer_are_named() -> None:
    unseen, silent = problems(
        [HEAD, replace(OTHER, missing=("/shared/x",)), replace(OTHER, versions={}, trouble="No module")], 2, 8
    )
    assert "10.0.0.2 does not see /shared/x" in unseen and "disk that all nodes share" in unseen
    assert "may not be installed" in silent and "No module" in silent


def test_a_folder_of_the_same_name_that_is_another_one_is_missing(tmp_path: Path) -> None:
    """On the other node the folder exists, and the file that was put into the shared one does not."""
    (tmp_path / "here").touch()
    versions, missing = look([str(tmp_path), "/no/such"], [str(tmp_path / "here"), str(tmp_path / "mark")])
    assert missing == ("/no/such", str(tmp_path)) and versions["verl"] is not None
    assert look([], [])[1] == ()


def test_a_relative_path_and_a_missing_cluster_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        main(["--nodes", "2", "--shared", "checkpoints"])
    assert "checkpoints: a relative path is another one on every node" in capsys.readouterr().err

    def absent(**_: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(ray, "init", absent)
    with pytest.raises(SystemExit, match="ray start --head"):
        main(["--nodes", "2"])


def test_the_mark_in_a_shared_folder_is_gone_after_the_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    node = {"NodeID": "a", "Alive": True, "Resources": {"GPU": 8.0}, "NodeManagerAddress": "10.0.0.1"}

    def answers(node_id: str, paths: list[str], marks: list[str]) -> tuple[list[str], list[str]]:
        seen.append(all(Path(mark).exists() for mark in marks))
        return paths, marks

    class Context:
        @staticmethod
        def get_node_id() -> str:
            return "a"

    monkeypatch.setattr(cluster, "_question", answers)
    monkeypatch.setattr(cluster, "_free_by_node", lambda: {"a": {"GPU": 3.0}})
    monkeypatch.setattr(ray, "nodes", lambda: [node, {**node, "NodeID": "b", "Alive": False}])
    monkeypatch.setattr(ray, "get", lambda question, timeout: look(*question))
    monkeypatch.setattr(ray, "get_runtime_context", Context)
    (asked,) = cluster.ask([str(tmp_path)], [str(tmp_path / "shared")])
    assert (asked.free, asked.missing, asked.trouble, seen) == (3.0, (), None, [True])
    assert list((tmp_path / "shared").iterdir()) == []

    def silent(question: Any, timeout: float) -> None:
        raise ray.exceptions.RayTaskError("look", "Traceback ...\nModuleNotFoundError: No module named 'recipe'", None)

    monkeypatch.setattr(ray, "get", silent)
    (asked,) = cluster.ask([], [])
    assert "No module named 'recipe'" in str(asked.trouble) and not asked.versions
