"""Tests run on the CPU default: the same environment as examples/cpu_demo.sh, set before verl is imported."""

import os
from typing import Any

import pytest
from hypothesis import settings

# Fixtures that hand on what a program beside the tests found.
BESIDE = {"with_plugin", "without_plugin", "card_figures"}

# No test depends on the clock, and machines are shared.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

os.environ.update(
    VERL_PLATFORM="cpu",
    VLLM_TARGET_DEVICE="cpu",
    VLLM_CPU_KVCACHE_SPACE="1",
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    # Spinning OpenMP threads take the cores from the other processes of the stack.
    OMP_WAIT_POLICY="PASSIVE",
)


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 resamples in place of 10,000: enough where no digit of an interval or of a p-value is looked at."""
    from recipe.hdpo.evaluation import intervals

    monkeypatch.setattr(intervals, "RESAMPLES", 1000)


def _beside(item: pytest.Item) -> set[str]:
    """The programs beside the tests that a test waits for."""
    return BESIDE & set(getattr(item, "fixturenames", ()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that wait for a program beside them come last; the order is kept otherwise."""
    items.sort(key=lambda item: bool(_beside(item)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the programs that tests of this run wait for."""
    wanted: set[str] = set().union(*map(_beside, session.items))
    if wanted and not session.config.option.collectonly:
        from tests import beside

        beside.start(wanted)


@pytest.fixture(scope="session")
def with_plugin() -> dict[str, str]:
    """What a new interpreter says at each fact (tests/hdpo/fresh_interpreter.py)."""
    from tests import beside

    return beside.result("with_plugin")


@pytest.fixture(scope="session")
def without_plugin() -> dict[str, str]:
    """What a new interpreter without the plug-in says at each fact."""
    from tests import beside

    return beside.result("without_plugin")


@pytest.fixture(scope="session")
def card_figures() -> dict[str, dict[str, Any]]:
    """What the benchmark of a single card writes on a CPU, by part."""
    from tests import beside

    return beside.result("card_figures")
