"""Rules on what reads signs of copying: a file of phrases, and a check of steps, have to be there before Ray starts."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from recipe.hdpo.algorithm.leakage import read_phrases
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.config.keys import Rule
from recipe.hdpo.step_check import load_step_check


def bad_phrases(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    try:
        if hdpo.privileged.phrases:
            read_phrases(Path(hdpo.privileged.phrases))
    except ValueError as error:
        return f"hdpo.privileged.phrases={hdpo.privileged.phrases}: {error}: name a file of one phrase a line, or null"
    return None


def bad_step_check(config: DictConfig, hdpo: HDPOConfig) -> str | None:
    try:
        if hdpo.privileged.step_check:
            load_step_check(hdpo.privileged.step_check)
    except ValueError as error:
        return str(error)
    return None


GATE_RULES: tuple[Rule, ...] = (bad_phrases, bad_step_check)
