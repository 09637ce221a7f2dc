"""Rollouts with chosen rewards, made without a model, and a stand-in for the engine that samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from recipe.hdpo.evaluation.generate import Response
from recipe.hdpo.evaluation.records import Sample
from recipe.hdpo.preflight.rollouts import Rollouts
from tests.hdpo.evaluation.made_results import sample


def rollouts(marks: Mapping[str, str], tokens: Mapping[str, Sequence[int]] | None = None, **changes: Any) -> Rollouts:
    """Rollouts of some problems: ``1`` is a right one, ``0`` a wrong one and ``?`` one that could not be graded."""
    graded: dict[str, list[Sample]] = {}
    lost = []
    for id_, row in marks.items():
        graded[id_] = []
        for i, mark in enumerate(row):
            length = {"tokens": tokens[id_][i]} if tokens else {}
            made = sample(id_, i, mark == "1", unscored="no time" if mark == "?" else "", **{**length, **changes})
            (lost if mark == "?" else graded[id_]).append(made)
    return Rollouts(len(next(iter(marks.values()))), 1.0, graded, lost)


class Tokenizer:
    """A token for each letter."""

    chat_template = "there is one"

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
        return SimpleNamespace(input_ids=[ord(letter) for letter in text])

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "".join(map(chr, ids))


class StandIn:
    """An engine that solves by its prompt: ``easy`` problems always, ``hard`` ones where it sees a worked line.

    A prompt is ``<PROBLEM>`` of one letter a token, and the context has 200 of them.
    """

    device, dtype, versions = "cpu", "float32", {"vllm": "0"}
    loads, asked, longest = 0, 0, 0
    positions: int | None = 200
    stop_after: int | None = None

    def __init__(self, *_: Any):
        self.tokenizer = Tokenizer()

    def token_ids(self, problems: Sequence[Any], template_kwargs: Any = None) -> dict[str, list[int]]:
        texts = {p.id: "".join(f"[{m['role']}]{m['content']}" for m in p.prompt) for p in problems}
        return {id_: [ord(letter) for letter in f"{text}[assistant]"] for id_, text in texts.items()}

    def room(self, max_tokens: int) -> int | None:
        return None if self.positions is None else self.positions - max_tokens

    def make_room(self, prompt_ids: Mapping[str, list[int]], max_tokens: int) -> None:
        StandIn.longest = max(StandIn.longest, max(map(len, prompt_ids.values())) + max_tokens)

    def load(self) -> None:
        StandIn.loads += 1

    def close(self) -> None:
        """Nothing to free."""

    def respond(self, requests: Sequence[tuple[str, int]], prompt_ids: Mapping[str, list[int]], _: Any) -> list:
        if StandIn.stop_after is not None and StandIn.asked >= StandIn.stop_after:
            raise KeyboardInterrupt
        StandIn.asked += len(requests)
        return [self._response(self.tokenizer.decode(prompt_ids[id_])) for id_, _ in requests]

    @staticmethod
    def _response(prompt: str) -> Response:
        number = prompt.partition("number ")[2][0]
        if "worked:" in prompt:
            text = f"as the solution says, it is #### {number}"
        else:
            text = f"#### {number}" if "easy" in prompt else "I <b>guess</b> #### 99"
        return Response(text, len(text), False)
