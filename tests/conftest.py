"""Tests run on the CPU default: the same environment as examples/cpu_demo.sh, set before verl is imported."""

import os

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


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 resamples in place of 10,000: enough where no digit of an interval or of a p-value is looked at."""
    from recipe.hdpo.evaluation import intervals

    monkeypatch.setattr(intervals, "RESAMPLES", 1000)
