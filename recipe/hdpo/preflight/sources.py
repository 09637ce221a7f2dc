"""The problems with their privileged prompts, made as training makes them."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from recipe.hdpo.algorithm.message_template import compile_template
from recipe.hdpo.algorithm.privileged_prompt import NoPrivilegedText, PrivilegedPromptBuilder, text_at
from recipe.hdpo.evaluation.problems import Problem

PLAIN = "plain"


@dataclass
class PromptSet:
    """The problems of one kind of rollouts.

    Attributes:
        source: ``plain``, or a source of privileged text.
        problems: with this kind's prompt; ids, ground truths and grading are the plain problem's.
        shown: the privileged text by problem id; empty for plain.
        without_text: by problem id why a problem has no privileged text.
        too_long: by problem id the tokens of a prompt that does not fit.
        prompt_ids: token ids by problem id, of ``problems``.
    """

    source: str
    problems: list[Problem]
    shown: dict[str, str] = field(default_factory=dict)
    without_text: dict[str, str] = field(default_factory=dict)
    too_long: dict[str, int] = field(default_factory=dict)
    prompt_ids: dict[str, list[int]] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Name of its result folder: ``prefix_0.5`` of ``prefix:0.5``."""
        return self.source.replace(":", "_")

    def fit(self, prompt_ids: Mapping[str, list[int]], limit: int | None) -> None:
        """Take these token ids, and leave the problems out of which they are longer than a limit (tokens; None: none).

        Nothing is ever cut.
        """
        self.too_long = {id_: len(ids) for id_, ids in prompt_ids.items() if limit is not None and len(ids) > limit}
        self.problems = [problem for problem in self.problems if problem.id not in self.too_long]
        self.prompt_ids = {problem.id: prompt_ids[problem.id] for problem in self.problems}

    def prompts_sha256(self) -> str:
        """Digest of what is shown: ids and messages of all problems."""
        prompts = sorted((problem.id, [[m["role"], m["content"]] for m in problem.prompt]) for problem in self.problems)
        return hashlib.sha256(json.dumps(prompts, ensure_ascii=False).encode()).hexdigest()


def make_builder(args: argparse.Namespace, source: str) -> PrivilegedPromptBuilder:
    """What builds the messages of a source's privileged prompts."""
    return PrivilegedPromptBuilder(
        template=compile_template(args.template, args.placement),
        placement=args.placement,
        source=source,
        solution_key=args.solution_key,
        answer_key=args.answer_key,
        join_texts=args.join_texts,
    )


def privileged(source: str, problems: Sequence[Problem], builder: PrivilegedPromptBuilder) -> PromptSet:
    """The problems with a source's privileged prompts; those without a text for it are noted.

    Raises:
        ValueError: the template fails on a row; names the problem.
    """
    found = PromptSet(source, [])
    for problem in problems:
        try:
            messages = builder.build(problem.prompt, problem.row)
            found.shown[problem.id] = builder.shown(problem.row)
        except NoPrivilegedText as missing:
            found.without_text[problem.id] = str(missing)
            continue
        except Exception as error:  # whatever the user's template raises
            raise ValueError(
                f"the privileged prompt ({source}) of problem {problem.id} cannot be made: "
                f"{type(error).__name__}: {error}"
            ) from error
        found.problems.append(replace(problem, prompt=messages))
    return found


def worked_solutions(problems: Sequence[Problem], key: str, *, join: bool) -> dict[str, str]:
    """The worked solution by problem id, of the problems that have one."""
    texts = {problem.id: text_at(problem.row, key, join=join) for problem in problems}
    return {id_: text for id_, text in texts.items() if text is not None}


def name_of(problem: Problem) -> str:
    """What a problem can be found by: its id, and its own index where it has one."""
    index = text_at(problem.row, "extra_info.index")
    return problem.id if index is None else f"{problem.id} (index {index})"
