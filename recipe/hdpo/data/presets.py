r"""How problem, worked solution and final answer are read from data sets that many people train on.

The forms are those of the data sets' pages on the Hugging Face hub; the tests hold rows in each form.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from recipe.hdpo.math_answer import after_thinking, final_answer

BOXED = r"Reason step by step and put the final answer in \boxed{}."
HASHED = 'Reason step by step, then end with a line "#### " and the answer as a number without units.'

_CALCULATION = re.compile(r"<<[^<>\n]*>>")
# "\boxed 5" has no braces to look for.
_BOXED_BARE = re.compile(r"\\boxed\s+([^\s{$]+?)[.,]?(?=[\s$]|$)")
# The task that DAPO's prompts wrap the problem in.
_DAPO = re.compile(
    r"Solve the following math problem step by step\. The last line of your response should be of the form "
    r"Answer: \$Answer \(without quotes\) where \$Answer is the answer to the problem\.\s*(.*?)\s*"
    r'Remember to put your answer on its own line after "Answer:"\.\s*',
    re.DOTALL,
)

Read = Callable[[str], str | None]


def _same(text: str) -> str | None:
    return text


@dataclass(frozen=True)
class Preset:
    """Where a data set has what a row needs, and how it is read from there.

    Attributes:
        about: for the command's help.
        hub: its name on the hub; ``config`` and ``test_split`` as it has them there.
        problem, solution, answer, difficulty: dotted keys; without ``solution`` rows have none, without ``answer`` it
            is what the solution ends with.
        instruction: follows the problem in the student's prompt.
        read_problem, read_solution, read_answer: the text to take of the column's; None where there is none.
        max_rows: by default so many problems are read.
    """

    about: str
    hub: str
    problem: str
    solution: str | None
    answer: str | None
    instruction: str = BOXED
    difficulty: str | None = None
    config: str | None = None
    test_split: str | None = None
    read_problem: Read = _same
    read_solution: Read = _same
    read_answer: Read = _same
    max_rows: int | None = None


def after_hashes(text: str) -> str | None:
    """What stands in the last line after "####", a number without commas."""
    _, marker, answer = text.rpartition("####")
    return answer.strip().replace(",", "") or None if marker else None


def without_calculations(text: str) -> str:
    """GSM8K's solution without the notes for a calculator: ``48/2=<<48/2=24>>24`` is ``48/2=24``."""
    return _CALCULATION.sub("", text)


def in_box(text: str) -> str | None:
    r"""What stands in the last ``\boxed{}``, or after a ``\boxed`` without braces."""
    bare = _BOXED_BARE.findall(text)
    return final_answer(text) or (bare[-1] if bare else None)


def dapo_problem(text: str) -> str:
    """The problem without the task around it, which asks for another form of answer than the recipe's reward."""
    wrapped = _DAPO.fullmatch(text.strip())
    return wrapped.group(1) if wrapped else text


PRESETS = {
    "gsm8k": Preset(
        about="grade-school word problems; the solution is `answer` without calculator notes, the answer follows ####",
        hub="openai/gsm8k",
        config="main",
        test_split="test",
        problem="question",
        solution="answer",
        answer="answer",
        instruction=HASHED,
        read_solution=without_calculations,
        read_answer=after_hashes,
    ),
    "math": Preset(
        about=r"MATH (Hendrycks et al.); the answer is the last \boxed{} of `solution`",
        hub="DigitalLearningGmbH/MATH-lighteval",
        test_split="test",
        problem="problem",
        solution="solution",
        answer="solution",
        difficulty="level",
        read_answer=in_box,
    ),
    "dapo": Preset(
        about="DAPO-Math-17k, which has final answers alone; the task around each problem is taken off",
        hub="BytedTsinghua-SIA/DAPO-Math-17k",
        problem="prompt",
        solution=None,
        answer="reward_model.ground_truth",
        read_problem=dapo_problem,
    ),
    "openmathinstruct2": Preset(
        about="OpenMathInstruct-2, the paper's data; the first usable solution of each problem",
        hub="nvidia/OpenMathInstruct-2",
        problem="problem",
        solution="generated_solution",
        answer="expected_answer",
        max_rows=70_000,
    ),
    "deepmath": Preset(
        about="DeepMath-103K; the solution is `r1_solution_1` after its thinking",
        hub="zwhe99/DeepMath-103K",
        problem="question",
        solution="r1_solution_1",
        answer="final_answer",
        difficulty="difficulty",
        read_solution=after_thinking,
    ),
}
