"""How many of a response's steps are valid: the checks of arithmetic lines, and how a check of the user's is loaded.

A check (``hdpo.privileged.step_check``) is a function of a response's text. It returns the share of its valid steps, in
[0, 1], or None where the text has no step that it can judge.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from recipe.hdpo.algorithm.arithmetic_steps import is_number, is_result, steps_of
from recipe.hdpo.math_answer import final_answer

KEY = "hdpo.privileged.step_check"
StepCheck = Callable[[str], float | None]


def arithmetic(text: str) -> float | None:
    """The share of a text's arithmetic steps that are right.

    A step is ``a op b = c``, with any number of ``+ - * /`` and parentheses on either side of the sign, and on at least
    one. Numbers are integers, decimals, fractions and percentages. In a chain ``a = b = c`` every sign is a step, so
    ``2 + 3 = 5 + 4 = 9`` has a false one. A lone decimal may be rounded: ``10 / 3 = 3.33`` is right. Units may
    stand behind numbers. What has a variable, a remainder or a time of day in it is no step, nor is a false one that
    other units may make right. Computed in exact fractions; no text is run as code.
    """
    found = steps_of(text)
    return sum(step.is_right for step in found) / len(found) if found else None


def arithmetic_to_answer(text: str) -> float | None:
    """As :func:`arithmetic`, with the final answer as one more step, which is right where it is the result of a right
    one: ``4 + 15 = 19`` and then ``#### 4`` has one right step of two. An answer that is no number is no step.
    """
    found, answer = steps_of(text), final_answer(text)
    right = [step.result for step in found if step.is_right]
    if not found or answer is None or not is_number(answer):
        return len(right) / len(found) if found else None
    return (len(right) + is_result(answer, right)) / (len(found) + 1)


def load_step_check(spec: str) -> StepCheck:
    """The function that ``package.module.function`` or ``FILE.py:FUNCTION`` names.

    Raises:
        ValueError: there is none, or it cannot be imported.
    """
    where, _, name = spec.rpartition(":" if ".py:" in spec else ".")
    try:
        module = _module_of_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
        function = getattr(module, name)
    except Exception as error:  # whatever the user's module raises
        raise ValueError(
            f"{KEY}={spec} cannot be imported: {type(error).__name__}: {error}: name a function as "
            "package.module.function or FILE.py:FUNCTION"
        ) from error
    if not callable(function):
        raise ValueError(f"{KEY}={spec} is a {type(function).__name__}, not a function")
    return function


def share_of(check: StepCheck, text: str) -> float | None:
    """What a check says of a text.

    Raises:
        ValueError: what it returned is neither None nor a number in [0, 1].
    """
    share = check(text)
    if share is None:
        return None
    if isinstance(share, bool | str) or not math.isfinite(float(share)) or not 0.0 <= float(share) <= 1.0:
        raise ValueError(f"the step check returned {share!r:.100}; it has to be a share in [0, 1], or None")
    return float(share)


def _module_of_file(path: Path) -> ModuleType:
    name = f"_hdpo_step_check_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module
