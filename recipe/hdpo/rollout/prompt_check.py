"""Start-up check: what the chat template makes of privileged prompts, looked at on some real rows.

A teacher whose prompt lacks the solution, the problem, or the model's first token still answers, and every metric still
looks like training. So the prompts are made here as the rollout hook makes them, before any worker starts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig

from recipe.hdpo.algorithm import feedback
from recipe.hdpo.algorithm.feedback import Attempt, FeedbackPromptBuilder
from recipe.hdpo.algorithm.privileged_prompt import NoPrivilegedText, text_at
from recipe.hdpo.config import HDPOConfig
from recipe.hdpo.data.readers import read_rows, row_name
from recipe.hdpo.math_answer import THOUGHTS_ARE_GRADED, opens_thinking, reads_answers
from recipe.hdpo.rollout.chat_template import make_prompt_builders, with_tools
from recipe.hdpo.rollout.prompt_faults import PromptPair
from recipe.hdpo.rollout.tool_agents import ToolAgents

logger = logging.getLogger(__name__)

# Besides the first and the longest row: of so many orders of roles the first row of each, and so many rows in between.
MAX_ROLE_ORDERS = 4
ROWS_BETWEEN = 3
# Rows among which these are looked for, evenly spaced: to read millions in Python takes minutes.
MAX_READ = 20_000
# In the place of a failed rollout and its feedback, of which none is there yet.
EXAMPLE = Attempt("AN ATTEMPT", "WHAT ITS CHECK SAID")
# Of the prompt that is printed.
MAX_SHOWN_CHARS = 4000


def check_prompts(
    config: DictConfig, hdpo: HDPOConfig, builder: Any, dataset: Any, privileged_builder: Any = None
) -> None:
    """Refuse what the chat template would spoil in privileged prompts; print one of them.

    Args:
        builder: see :func:`~recipe.hdpo.rollout.chat_template.make_token_builder`.
        privileged_builder: see :class:`~recipe.hdpo.rollout.prompt_faults.PromptPair`.
        dataset: verl's RLHFDataset, before its filter of long prompts, which leaves out rows that a chat template
            refuses. Other data sets, and rows that are no chats, are left to the checks of the data.

    Raises:
        ValueError: a prompt that :class:`~recipe.hdpo.rollout.prompt_faults.PromptPair` finds a fault with; names the
            row, the reason and the way out.
    """
    frame: Any = getattr(dataset, "dataframe", None)
    key = config.data.get("prompt_key", "prompt")
    shows = hdpo.privileged.n > 0 and hdpo.privileged.shows
    if not shows or not hasattr(frame, "select_columns") or key not in frame.column_names:
        return
    options = hdpo.privileged
    columns = {key, "extra_info", "agent_name", options.solution_key.split(".")[0], options.answer_key.split(".")[0]}
    positions = range(0, len(frame), max(1, len(frame) // MAX_READ))
    rows = zip(positions, read_rows(frame, sorted(columns & set(frame.column_names)), positions), strict=True)
    said, printed, idle = set[str](), set[str](), privileged_builder is not None
    sampled = sorted(_sample(key, hdpo, rows, len(frame)).items())
    for name, source, pair in _pairs(config, hdpo, key, sampled, (builder, privileged_builder)):
        if fault := pair.fault():
            raise ValueError(f"the privileged prompt of {name} {fault}")
        idle = idle and not pair.options_matter()
        if source not in printed:
            print(f"The privileged prompt of {name}, between two lines:\n{_line()}\n{_short(pair.text)}\n{_line()}")
            printed.add(source)
        if (difference := pair.difference()) and difference not in said:
            said.add(difference)
            logger.warning(f"the privileged prompt of {name} {difference}")
        if opens_thinking(pair.text) and (said_so := _thoughts_are_graded(config)) and said_so not in said:
            said.add(said_so)
            logger.warning(said_so)
    if idle and printed:
        raise ValueError(
            f"hdpo.privileged.chat_template_kwargs={options.chat_template_kwargs} changes no privileged prompt: the "
            "model's chat template knows no such option, or has that value already. Mend the name, or leave it empty"
        )


def _thoughts_are_graded(config: DictConfig) -> str | None:
    """What to say where the recipe's own reward does not know that the chat template opens a thought."""
    reward = config.reward.custom_reward_function
    options = reward.get("reward_kwargs", None) or {}
    if not reads_answers(reward.path) or "thinking_opened" in options:
        return None
    knob = "+reward.custom_reward_function.reward_kwargs.thinking_opened=true (or false to leave it so)"
    return f"{THOUGHTS_ARE_GRADED}. Add {knob}"


def _pairs(
    config: DictConfig, hdpo: HDPOConfig, key: str, rows: Iterable[tuple[int, dict]], builders: tuple[Any, Any]
) -> Iterator[tuple[str, str, PromptPair]]:
    """What to call a prompt, its source, and the pair, of every row and source with a text to show."""
    (plain, own), sources = builders, make_prompt_builders(hdpo)
    agents = ToolAgents.of(config, plain.tokenizer)
    for position, row in rows:
        agent = row.get("agent_name") or config.actor_rollout_ref.rollout.agent.default_agent_loop
        schemas = agents.schemas(agent, row)
        token_builders = with_tools(plain, schemas), None if own is None else with_tools(own, schemas)
        for source, messages in sources.items():
            name = f"training {row_name(position, row)}" + (f" ({source})" if len(sources) > 1 else "")
            try:
                if isinstance(messages, FeedbackPromptBuilder):
                    privileged = messages.build(row[key], EXAMPLE)
                else:
                    privileged = messages.build(row[key], row)
            except NoPrivilegedText:
                continue  # counted by check_data
            except Exception as error:  # whatever the user's template raises
                knob = "feedback_template" if source == feedback.SOURCE else "template"
                raise ValueError(
                    f"hdpo.privileged.{knob} cannot be rendered for {name}: {type(error).__name__}: {error}"
                ) from error
            yield name, source, PromptPair(token_builders[0], row[key], privileged, token_builders[1])


def _sample(key: str, hdpo: HDPOConfig, rows: Iterable[tuple[int, dict]], count: int) -> dict[int, dict]:
    """Rows to look at, by position: the first, the longest, the first of each order of roles, the first with characters
    that markup escapes, the first with white space around a text, and some between."""
    options, found = hdpo.privileged, dict[Any, tuple[int, dict]]()
    sources = [source for source in options.sources if source != feedback.SOURCE]
    keys = {options.answer_key if source == "answer" else options.solution_key for source in sources}
    longest, step = -1, max(1, count // ROWS_BETWEEN)
    for i, row in rows:
        roles = tuple(message["role"] for message in row[key]) if _is_chat(row[key]) else ()
        if "user" not in roles:
            continue
        shown = [text for k in sorted(keys) if (text := text_at(row, k, join=options.join_texts)) is not None]
        if not shown and len(sources) == len(options.sources):
            continue  # no source has a text
        texts = [*(message["content"] for message in row[key]), *shown]
        if sum(map(len, texts)) > longest:
            longest, found["longest"] = sum(map(len, texts)), (i, row)
        traits = ["first", f"between {i // step}"]
        traits += ["markup"] if any(c in text for text in texts for c in "<>&\"'") else []
        traits += ["white space"] if any(text != text.strip() for text in texts) else []
        if roles in found or sum(isinstance(trait, tuple) for trait in found) < MAX_ROLE_ORDERS:
            found.setdefault(roles, (i, row))
        for trait in traits:
            found.setdefault(trait, (i, row))
    return dict(found.values())


def _is_chat(messages: Any) -> bool:
    return isinstance(messages, list) and all(
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
        for message in messages
    )


def _line() -> str:
    return "-" * 60


def _short(text: str) -> str:
    if len(text) <= MAX_SHOWN_CHARS:
        return text
    half = MAX_SHOWN_CHARS // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters ...]\n{text[-half:]}"
