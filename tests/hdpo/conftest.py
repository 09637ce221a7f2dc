"""What several test modules share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.hdpo.training.fsdp_ranks import Job, RankGroups, Result


@pytest.fixture(scope="session", autouse=True)
def patient_grader() -> None:
    """A machine that runs other tests beside these may take seconds for what takes milliseconds: a comparison that ends
    is not given up. Tests of those that do not end set a limit of their own."""
    from recipe.hdpo import math_process

    math_process.TIME_LIMIT_S, math_process.START_LIMIT_S = 120.0, 600.0


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
def rank_groups(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankGroups]:
    """Groups of 1, 2, ... ranks, each started with its first job."""
    from tests.hdpo.training.fsdp_ranks import RankGroups

    groups = RankGroups(lambda: tmp_path_factory.mktemp("ranks"))
    yield groups
    groups.close()


@pytest.fixture(scope="session")
def run(rank_groups: RankGroups) -> Callable[[Job], Result]:
    """Runs a job on as many ranks as its rollouts are dealt to."""
    return rank_groups
