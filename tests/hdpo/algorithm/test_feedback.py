"""Which failed attempt a privileged prompt shows, and what it looks like."""

from __future__ import annotations

import pytest

from recipe.hdpo.algorithm.default_templates import FEEDBACK
from recipe.hdpo.algorithm.feedback import (
    Attempt,
    FeedbackPromptBuilder,
    attempt_for,
    first_attempts,
    from_json,
    to_json,
)
from recipe.hdpo.algorithm.message_template import compile_template

A, B, C = (Attempt(f"text {name}", f"said {name}") for name in "abc")


def test_attempts_are_taken_by_the_number_of_their_rollout_and_from_the_first_again() -> None:
    assert first_attempts({5: C, 0: A, 3: B}, 2) == [A, B] and first_attempts({}, 2) == []
    assert [attempt_for([A, B], j) for j in range(5)] == [A, B, A, B, A]
    with pytest.raises(ValueError, match="no failed attempt has feedback"):
        attempt_for([], 0)


def test_attempts_travel_as_text_and_come_back_as_they_were() -> None:
    odd = Attempt('{{ x }} "\\n"\u2028', "<b>\n\U0001f600")
    assert from_json(to_json([A, odd])) == [A, odd] and from_json(to_json([])) == []


@pytest.mark.parametrize("placement", ["user", "system"])
def test_the_default_templates_show_problem_attempt_and_feedback_whole(placement: str) -> None:
    builder = FeedbackPromptBuilder(compile_template(None, placement, FEEDBACK), placement)
    plain = [{"role": "user", "content": "THE {{ problem }}"}]
    made = builder.build(plain, Attempt("tried\n{% x %}", "line 3:\nwrong"))
    texts = "\n".join(message["content"] for message in made)
    assert all(texts.count(text) == 1 for text in ("THE {{ problem }}", "tried\n{% x %}", "line 3:\nwrong"))
    assert [m["role"] for m in made] == (["user"] if placement == "user" else ["system", "user"])
    assert plain == [{"role": "user", "content": "THE {{ problem }}"}]
