"""Tests run on the CPU default: the same environment as examples/cpu_demo.sh, set before verl is imported."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

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
if "PYTEST_XDIST_WORKER" in os.environ:
    # A core for each of the processes that share the tests out.
    os.environ["OMP_NUM_THREADS"] = "1"

ENVIRONMENT = dict(os.environ)

# What is started once and takes long stays in one of the processes that share the tests out, by the tests that need it.
# Ray and vLLM can run once on a machine. The longest come first, so that no process waits for them at the end.
TOGETHER = {
    "tests/e2e/": "Ray and vLLM",
    "tests/hdpo/training/": "FSDP ranks",
    "tests/hdpo/config/test_checks.py": "new interpreters",
    "tests/hdpo/test_layers.py": "new interpreters",
}

# Fixtures that start further processes, which import verl or torch: their tests are slow.
PROCESSES = {"rank_groups", "with_plugin", "without_plugin", "card_figures"}


def _share(nodeid: str) -> str:
    """What one process takes at a time: one of the above, or a file."""
    return next((name for path, name in TOGETHER.items() if nodeid.startswith(path)), nodeid.partition("::")[0])


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and PROCESSES & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)
    order = list(TOGETHER.values())
    items.sort(key=lambda item: order.index(share) if (share := _share(item.nodeid)) in order else len(order))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n 2`` (pytest-xdist) a process that is done takes the next share, in the order of the tests."""
    from xdist.scheduler import LoadScopeScheduling

    class ByShare(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _share(nodeid)

    config.option.loadscopereorder = False
    return ByShare(config, log)


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 resamples in place of 10,000: enough where no digit of an interval or of a p-value is looked at."""
    from recipe.hdpo.evaluation import intervals

    monkeypatch.setattr(intervals, "RESAMPLES", 1000)


@pytest.fixture(scope="session")
def with_plugin() -> dict[str, str]:
    """What a new interpreter says at each fact (tests/hdpo/fresh_interpreter.py)."""
    from tests.hdpo import fresh_interpreter

    with tempfile.TemporaryDirectory() as folder:
        return fresh_interpreter.with_plugin(Path(folder), ENVIRONMENT)


@pytest.fixture(scope="session")
def without_plugin() -> dict[str, str]:
    """What a new interpreter without the plug-in says at each fact."""
    from tests.hdpo import fresh_interpreter

    with tempfile.TemporaryDirectory() as folder:
        return fresh_interpreter.without_plugin(Path(folder), ENVIRONMENT)


@pytest.fixture(scope="session")
def card_figures() -> dict[str, dict[str, Any]]:
    """What the benchmark of a single card writes on a CPU, by part."""
    from tests.benchmarks import card_on_cpu

    with tempfile.TemporaryDirectory() as folder:
        return card_on_cpu.figures(Path(folder), ENVIRONMENT)
