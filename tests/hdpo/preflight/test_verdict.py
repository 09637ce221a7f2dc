"""The verdict by its figures, and settings that Hydra and the recipe accept."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from recipe.hdpo.config.checks import check_config
from recipe.hdpo.preflight.advice import command
from recipe.hdpo.preflight.arguments import parser
from recipe.hdpo.preflight.numbers import advised_n
from recipe.hdpo.preflight.verdict import best_source, judge, percent
from tests.hdpo.composed_config import composed

TEMPLATE = '{{ problem }}\nIt\'s "\\boxed":\n{{ solution }}'


def around(estimate: float, by: float = 0.05) -> dict[str, float]:
    return {"estimate": estimate, "low": max(0.0, estimate - by), "high": min(1.0, estimate + by)}


def source(rate: float | None, copies: float = 0.0, plain: float | None = 0.0, by: float = 0.05) -> dict[str, Any]:
    """A source whose rollouts of cliffs are right at this rate, and copy at this one."""
    right: dict[str, Any] = {"rollouts": int(bool(rate)), **dict.fromkeys(("speaks", "copies", "workless"))}
    shown = right | ({"speaks": around(0.0), "copies": around(copies)} if rate else {})
    without = right | ({"speaks": around(0.0), "copies": around(plain)} if plain is not None else {})
    cost = {"same_step": 1.2, "next_step": 1.0}
    return {
        "on_cliffs": {"pass": {} if rate is None else {"1": around(rate, by), "2": around(rate, by)}},
        "leaks": {"privileged": shown, "on_cliffs": shown, "plain": without},
        "longest_prompt": 130,
        "n": 1,
        "cost": {"half_the_step": cost},
    }


def numbers(cliffs: float, sources: dict[str, Any], count: int = 40, by: float = 0.02, cut: int = 0) -> dict[str, Any]:
    return {
        **{"K": 8, "J": 2, "max_tokens": 100, "room": None, "problems": 100, "sources": sources},
        "cliffs": {
            "by_k": [{"k": 8, "problems": 100, "share": around(cliffs, by)}],
            "ids": [str(i) for i in range(count)],
            "failed": {"rollouts": 10, "truncated": cut},
        },
        "plain": {"longest_prompt": 64},
        "ladder": {},
        "lengths": {name: {"solved": {"rollouts": 9, "truncated": 0}} for name in sources},
    }


def args(*more: str) -> Any:
    return parser().parse_args(["--model", "m", "--data", "d", "--out", "o", "--n", "8", "--max-tokens", "100", *more])


CASES = {
    "it fits": (
        numbers(0.31, {"solution": source(0.82, copies=0.12)}),
        "yes",
        "HDPO fits: try it, with source solution",
    ),
    "no cliff": (numbers(0.0, {"solution": source(None)}, count=0), "no", "few prompts are cliffs"),
    "no cliff of few": (
        numbers(0.0, {"solution": source(None)}, count=0, by=0.26),
        "unsure",
        "Too few cliffs to tell (none)",
    ),
    "few cliffs": (numbers(0.02, {"solution": source(0.8)}), "no", "few prompts are cliffs"),
    "cannot follow": (numbers(0.3, {"solution": source(0.02)}), "no", "the model still fails"),
    "copies": (numbers(0.3, {"answer": source(0.9, copies=0.95)}), "no", "mostly copied"),
    "follows a little, copies a little": (
        numbers(0.3, {"solution": source(0.11, copies=0.15, by=0.005)}),
        "unsure",
        "may help, with source solution",
    ),
    "one source copies, one tells nothing": (
        numbers(0.3, {"solution": source(0.9, copies=1.0), "answer": source(0.03, by=0.01)}),
        "no",
        "mostly copied",
    ),
    "copies as plain rollouts do": (numbers(0.3, {"solution": source(0.9, 0.95, plain=0.95)}), "yes", "HDPO fits"),
    "too few, and none solved": (
        numbers(0.3, {"solution": source(0.0)}, count=3),
        "unsure",
        "Too few cliffs to tell (3)",
    ),
    "too few": (numbers(0.3, {"solution": source(0.8)}, count=9), "unsure", "Too few cliffs to tell (9)"),
    "perhaps": (numbers(0.06, {"solution": source(0.8)}), "unsure", "may help, with source solution"),
    "perhaps follows": (numbers(0.3, {"solution": source(0.12)}), "unsure", "may help, with source solution"),
    "nothing to show": (numbers(0.3, {"solution": source(None)}), "no", "no cliff has a privileged text"),
    "no source at all": (numbers(0.3, {"solution": {"problems": 0}}), "no", "no cliff has a privileged text"),
}


@pytest.mark.parametrize(("found", "tone", "said"), CASES.values(), ids=CASES.keys())
def test_each_kind_of_figures_has_its_verdict(found: dict[str, Any], tone: str, said: str) -> None:
    verdict = judge(args(), found)
    assert verdict.tone == tone and said in verdict.headline
    assert bool(verdict.flags) == (tone != "no" and "Too few" not in said)


def test_the_sentences_are_the_figures() -> None:
    text = " ".join(judge(args(), numbers(0.31, {"solution": source(0.82, copies=0.12, plain=0.03)})).sentences)
    assert "31 % [29, 33] of prompts are cliffs at K = 8." in text
    assert "With the solution, 82 % [77, 87] of the cliffs' rollouts are right" in text
    assert "; 12 % [7, 17] of those repeat 50 % or more of their length in one run" in text
    assert "(of plain right ones 3 % [0, 8])" in text
    assert "ran into" not in text and "Nearly every prompt" not in text


def test_a_sign_that_plain_rollouts_show_as_often_is_said_to_tell_nothing() -> None:
    text = " ".join(judge(args(), numbers(0.3, {"solution": source(0.8, copies=0.9, plain=0.95)})).sentences)
    assert "90 % [85, 95] of those repeat 50 % or more of their length in one run, but so do 95 % [90, 100] of " in text
    assert "right ones: it tells nothing here." in text
    clean = " ".join(judge(args(), numbers(0.3, {"solution": source(0.8)})).sentences)
    assert "none of those shows a sign of copying" in clean


def test_what_else_may_be_wrong_is_said() -> None:
    text = " ".join(judge(args(), numbers(0.98, {"prefix:0.5": source(0.8, plain=None)}, cut=6)).sentences)
    assert "Nearly every prompt is a cliff: look at the reward" in text
    assert "60 % of the rollouts of cliffs ran into 100 tokens" in text
    assert "With the first 50 % of the solution, 80 %" in text


def test_the_source_is_the_one_whose_right_rollouts_are_not_copied() -> None:
    found = {"solution": source(0.9, copies=0.6), "prefix:0.5": source(0.5), "answer": source(0.7, copies=0.9)}
    assert best_source(numbers(0.3, found)) == "prefix:0.5"  # 0.36, 0.5, 0.07
    found["solution"] = source(0.9, copies=0.6, plain=0.5)
    assert best_source(numbers(0.3, found)) == "solution"  # 0.81


def test_the_settings_are_what_hydra_and_the_recipe_accept_as_a_shell_hands_them_over() -> None:
    options = ("--template", TEMPLATE, "--solution-key", "extra_info.hint", "--join-texts", "--placement", "system")
    options += ("--success-reward", "0.5", "--temperature", "0.6", "--top-p", "0.9", "--top-k", "40")
    options += ("--reward", "rewards/my one.py:score", "--reward-kwargs", '{"strict": true}')
    verdict = judge(args(*options), numbers(0.3, {"prefix:0.5": source(0.8)}))
    script = f"printf '%s\\0' {command(verdict.flags)}"
    words = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
    given = {each.key_or_group: each.value() for each in OverridesParser.create().parse_overrides(words)}
    assert given.pop("use") == "hdpo"
    assert given["hdpo.privileged.template"] == TEMPLATE
    assert given["hdpo.privileged.schedule"] == "next_step"
    assert given["reward.custom_reward_function.path"] == str(Path("rewards/my one.py").resolve())
    assert given["reward.custom_reward_function.name"] == "score"
    assert given["reward.custom_reward_function.reward_kwargs.strict"] is True
    rollout = [given[f"actor_rollout_ref.rollout.{name}"] for name in ("temperature", "top_p", "top_k")]
    assert (rollout, given["hdpo.success_reward"]) == ([0.6, 0.9, 40], 0.5)
    assert given["data.max_prompt_length"] == 64 and given["hdpo.privileged.max_prompt_length"] == 192
    assert given["actor_rollout_ref.rollout.max_model_len"] == 292
    knobs = check_config(composed(*(word for word in words if word != "+use=hdpo"))).privileged
    assert (knobs.source, knobs.solution_key, knobs.placement) == ("prefix:0.5", "extra_info.hint", "system")
    assert (knobs.template, knobs.join_texts, knobs.n) == (TEMPLATE, True, 1)


def test_where_nothing_else_is_given_the_recipes_own_reward_is_named_and_no_sampling() -> None:
    flags = [flag for flag, _ in judge(args(), numbers(0.3, {"answer": source(0.8)})).flags]
    assert "reward.custom_reward_function.path=pkg://recipe.hdpo.reward" in [flag.replace('"', "") for flag in flags]
    assert "reward.custom_reward_function.name=compute_score" in flags
    assert not [flag for flag in flags if "temperature" in flag or "top_" in flag or "success" in flag]


@pytest.mark.parametrize(
    ("plain", "shown", "room", "found"),
    [(64, 130, None, (64, 192)), (60, 62, None, (64, 128)), (60, 130, 150, (64, 150)), (120, 125, 126, (125, 126))],
)
def test_privileged_prompts_may_be_longer_than_plain_ones_and_no_longer_than_the_model_reads(
    plain: int, shown: int, room: int | None, found: tuple[int, int]
) -> None:
    made = numbers(0.3, {"answer": source(0.8) | {"longest_prompt": shown}}) | {"room": room}
    made["plain"]["longest_prompt"] = plain
    flags = dict(flag.split("=", 1) for flag, _ in judge(args(), made).flags)
    assert tuple(int(flags[key]) for key in ("data.max_prompt_length", "hdpo.privileged.max_prompt_length")) == found


def test_the_number_of_privileged_rollouts_has_the_reason_that_holds() -> None:
    for n, why in ((1, "solves nearly as many cliffs as 2 would"), (2, "as many as were tried here")):
        flags = dict(judge(args(), numbers(0.3, {"solution": source(0.8) | {"n": n}})).flags)
        assert flags[f"hdpo.privileged.n={n}"] == why


def test_a_cheap_wait_is_waited_for() -> None:
    found = numbers(0.3, {"solution": source(0.8)})
    found["sources"]["solution"]["cost"]["half_the_step"]["same_step"] = 1.05
    flags = dict(flag.split("=", 1) for flag, _ in judge(args(), found).flags)
    assert flags["hdpo.privileged.schedule"] == "same_step"


@pytest.mark.parametrize(
    ("rates", "n"), [({"1": 0.5, "2": 0.7, "4": 0.75}, 2), ({"1": 0.0, "2": 0.0, "4": 0.0}, 1), ({}, 1)]
)
def test_as_few_privileged_rollouts_are_advised_as_solve_nearly_all(rates: dict[str, float], n: int) -> None:
    assert advised_n({"pass": {k: around(rate) for k, rate in rates.items()}}, 4) == n


def test_unknown_intervals_are_shown_as_such() -> None:
    assert (percent(None), percent({"estimate": 0.5, "low": None, "high": None})) == ("?", "50 %")


def test_a_ladder_that_solves_is_told_with_its_overrides() -> None:
    ladder = {"sources": ["prefix:0.5", "solution"], "problems": 9, "solved": around(0.8), "by_rung": [0.3, 0.5]}
    made = numbers(0.3, {"prefix:0.5": source(0.3), "solution": source(0.7)})
    [said] = [line for line in judge(args(), made | {"ladder": ladder}).sentences if "A ladder" in line]
    assert "would solve 80 % [75, 85] of the cliffs (30 % with the first 50 % of the solution, 50 % with the" in said
    assert said.endswith("hdpo.privileged.source=[prefix:0.5,solution] hdpo.privileged.n=2.")
    assert not [line for line in judge(args(), made).sentences if "ladder" in line]
