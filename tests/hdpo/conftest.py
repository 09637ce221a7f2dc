"""What several test modules share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.hdpo.training.fsdp_ranks import Job, Ranks, Result


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random model with a chat tokenizer."""
    from tests.hdpo.training.fsdp_ranks import make_chat_model

    folder = tmp_path_factory.mktemp("chat")
    make_chat_model(folder)
    return folder


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random model of a few thousand weights."""
    from tests.hdpo.training.fsdp_ranks import make_model

    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def rank_groups(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Ranks]]:
    """Groups of one and two ranks."""
    from tests.hdpo.training.fsdp_ranks import Ranks

    groups = {n: Ranks(n, tmp_path_factory.mktemp(f"ranks_{n}")) for n in (1, 2)}
    yield groups
    for group in groups.values():
        group.close()


@pytest.fixture(scope="session")
def run(rank_groups: dict[int, Ranks]) -> Callable[[Job], Result]:
    """Runs a job on one or two ranks."""
    return lambda job: rank_groups[len(job.rollouts)](job)
