"""The rows of a data set at start-up: can verl read them, can a response be right, has a privileged prompt a text?

What is refused would end in an error in the middle of verl, or train on nothing; what leaves some rows without use is a
warning. Every row is looked at, except where a message says that a sample was: ground truths that are graded against
themselves, and rows of a data set class of the user's own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.hdpo import math_process, reward
from recipe.hdpo.algorithm import feedback
from recipe.hdpo.algorithm.solution_prefix import prefix_share
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.data import prompts, solutions, truths
from recipe.hdpo.data.readers import count, row_names

logger = logging.getLogger(__name__)

# Ground truths that are graded against themselves, and items of a class of the user's own that are looked at.
SAMPLE = 100
_VERLS_CLASS = "verl.utils.dataset.rl_dataset"


def check_rows(config: DictConfig, hdpo: HDPOConfig, dataset: Any, *, files: str = "train_files") -> None:
    """Refuse rows that verl or the recipe cannot use; warn of those that teach nothing.

    Args:
        dataset: verl's RLHFDataset, or a class of the user's own.
        files: which of verl's data settings names the files, ``train_files`` or ``val_files``. Only for training are
            texts for privileged prompts looked for.

    Raises:
        ValueError: names the column, what stands there, the first rows, and the way out.
    """
    privileged = files == "train_files" and hdpo.privileged.n > 0 and hdpo.privileged.shows
    named = f"data.{files}={config.data.get(files)}"
    frame: Any = getattr(dataset, "dataframe", None)
    known = hasattr(frame, "select_columns")
    if type(dataset).__module__ != _VERLS_CLASS and hasattr(type(dataset), "__getitem__"):
        _check_items(dataset, named, privileged)
    elif known:
        _check_forms(config, frame, named, privileged, complete=type(dataset).__module__ == _VERLS_CLASS)
    if known and len(frame) == 0:
        raise ValueError(f"{named} has no rows")
    if known:
        _check_truths(config, frame, named)
        if privileged:
            _check_texts(config, hdpo, frame, named)


def own_reward(config: DictConfig) -> bool:
    """Whether rollouts are scored by the recipe's own reward."""
    path = str(OmegaConf.select(config, "reward.custom_reward_function.path") or "")
    name = OmegaConf.select(config, "reward.custom_reward_function.name")
    if path.startswith("pkg://"):
        is_own = path.removeprefix("pkg://").replace("/", ".") == reward.__name__
    else:
        is_own = bool(path) and Path(path.removeprefix("file://")).resolve() == Path(reward.__file__).resolve()
    return is_own and name == reward.compute_score.__name__


def needs_truth(config: DictConfig) -> bool:
    """Whether verl's reward managers read ``reward_model.ground_truth``: not for a reward model alone, and nothing is
    known of a manager of the user's own."""
    function = OmegaConf.select(config, "reward.custom_reward_function.path")
    if OmegaConf.select(config, "reward.reward_model.enable") and not function:
        return False
    return OmegaConf.select(config, "reward.reward_manager.source") in (None, "register")


def _check_forms(config: DictConfig, frame: Any, files: str, privileged: bool, *, complete: bool) -> None:
    key = config.data.get("prompt_key", "prompt")
    wanted = [key, *(("data_source", "reward_model") if needs_truth(config) else ())]
    missing = [name for name in wanted if name not in frame.column_names]
    if complete and missing:
        raise ValueError(
            f"{files} has no column {', '.join(missing)}, which verl reads; there are {', '.join(frame.column_names)}. "
            f"data.prompt_key names the column of prompts; {prompts.CONVERT}"
        )
    if key in frame.column_names:
        prompts.check_prompts(frame, key, files, privileged=privileged)
        blank = prompts.blank_problems(frame, key)
        if blank:
            logger.warning(
                f"{len(blank)} of {len(frame)} rows of {files} have a last user's message that shows nothing "
                f"(column '{key}': {row_names(frame, blank)}): there is no problem to solve; leave them out"
            )
    for name in ("extra_info", *(("reward_model",) if needs_truth(config) else ())):
        if name in frame.column_names:
            prompts.check_info(frame, name, files)


def _check_items(dataset: Any, files: str, privileged: bool) -> None:
    """A class of the user's own may read any file, so what it hands to verl is looked at."""
    for position in truths.sample_positions(len(dataset), SAMPLE):
        where = f"item {position} of {type(dataset).__name__} ({files})"
        try:
            item = dataset[position]
        except Exception as error:
            raise ValueError(f"{where} cannot be read: {type(error).__name__}: {error}") from error
        prompt: Any = item.get("raw_prompt") if isinstance(item, Mapping) else None
        prompt = prompt.tolist() if hasattr(prompt, "tolist") else prompt
        fault = prompts.prompt_fault(list(prompt) if isinstance(prompt, tuple) else prompt, privileged=privileged)
        if fault is not None:
            raise ValueError(f"{where}: in 'raw_prompt' stands {fault[0]}: {fault[1]}")


def _check_truths(config: DictConfig, frame: Any, files: str) -> None:
    if "reward_model" not in frame.column_names or not needs_truth(config):
        return
    own, place = own_reward(config), ("reward_model", "ground_truth")
    found = truths.truth_faults(frame, *place, own_reward=own)
    unusable, what = sum(map(len, found.values())), "at reward_model.ground_truth stands"
    if not own:
        if unusable:
            logger.warning(
                f"{unusable} of {len(frame)} rows of {files} have no ground truth ({what} {count(found, frame)}). What "
                "your reward makes of that is not known here; a row that it never scores as right is a cliff for ever"
            )
        return
    if unusable == len(frame) > 0:
        raise ValueError(
            f"no response to any row of {files} can be right: {what} {count(found, frame)}. The recipe's reward "
            "(recipe/hdpo/reward.py) needs a text or a number there: mend the column, or name a reward of your own"
        )
    sample = truths.sample_positions(len(frame), SAMPLE)
    faulty = {position for rows in found.values() for position in rows}
    graded = truths.sampled_faults(frame, *place, [position for position in sample if position not in faulty])
    # Its processes have nothing to do here any more.
    math_process.stop()
    if unusable:
        logger.warning(
            f"to {unusable} of {len(frame)} rows of {files} no response can be right, so each is a cliff for ever: "
            f"{what} {count(found, frame)}. Mend these rows, or leave them out"
        )
    if graded:
        _report_sample(graded, len(sample) - len(faulty.intersection(sample)), frame, files)


def _report_sample(graded: dict[str, list[int]], size: int, frame: Any, files: str) -> None:
    message = (
        f"of a sample of {size} ground truths of {files} {sum(map(len, graded.values()))} cannot be graded well: at "
        f"reward_model.ground_truth stands {count(graded, frame)}. Such a row is a cliff for nearly every response: "
        "mend it (the final answer alone, as text or LaTeX)"
    )
    if len(graded.get(truths.NOT_ITSELF, ())) == size:
        raise ValueError(message)
    logger.warning(message)


def _check_texts(config: DictConfig, hdpo: HDPOConfig, frame: Any, files: str) -> None:
    """Each source's texts; a row that lacks one skips that rung of a ladder."""
    for source in hdpo.privileged.sources:
        if source == feedback.SOURCE:
            continue  # the reward's, which is known once it scores
        _check_source_texts(hdpo, source, frame, files)


def _check_source_texts(hdpo: HDPOConfig, source: str, frame: Any, files: str) -> None:
    options, worked = hdpo.privileged, source != "answer"
    name = "solution_key" if worked else "answer_key"
    key, join = getattr(options, name), options.join_texts
    found = solutions.rows_without(frame, key, join=join)
    without = sorted(position for rows in found.values() for position in rows)
    if len(without) < len(frame):
        _check_prefixes(hdpo, source, frame, files)
    if not without:
        return
    stands = ", ".join(f"{why} in {len(rows)}" for why, rows in sorted(found.items(), key=lambda item: -len(item[1])))
    remedy = (
        "; hdpo.privileged.join_texts=true joins a list of texts by line breaks" if "a list of texts" in found else ""
    )
    if len(without) == len(frame):
        places = solutions.other_places(frame, key, options.answer_key, worked=worked, join=join)
        advice = "" if remedy else f"; {solutions.advice(places, name, len(frame), worked=worked)}"
        raise ValueError(
            f"no row of {files.partition('=')[2]} has a text at {key}, which privileged prompts show "
            f"(hdpo.privileged.source={source}, hdpo.privileged.{name}={key}): there stands {stands}"
            f"{remedy}{advice}"
        )
    logger.warning(
        f"{len(without)} of {len(frame)} training rows have no text at {key} (there stands {stands}{remedy}); "
        f"{_consequence(hdpo, source)}. First: {row_names(frame, without)}"
    )


def _consequence(hdpo: HDPOConfig, source: str) -> str:
    rungs = len(hdpo.privileged.sources)
    what = "they are skipped and counted" if rungs == 1 else f"they skip the rung {source}, which is counted"
    return f"as cliffs {what} (hdpo/skipped_no_solution)"


def _check_prefixes(hdpo: HDPOConfig, source: str, frame: Any, files: str) -> None:
    options = hdpo.privileged
    share = prefix_share(source)
    if share is None:
        return
    sample = truths.sample_positions(len(frame), SAMPLE)
    whole = solutions.without_prefix(frame, options.solution_key, share, sample, join=options.join_texts)
    if not whole:
        return
    message = (
        f"of a sample of {len(sample)} rows of {files} {len(whole)} have a solution of one line and one sentence at "
        f"{options.solution_key}, which has no first part to show (hdpo.privileged.source={source}); "
        f"{_consequence(hdpo, source)}. First: {row_names(frame, whole)}"
    )
    if len(whole) == len(sample):
        raise ValueError(f"{message}. Set hdpo.privileged.source=solution, or write solutions in several lines")
    logger.warning(message)
