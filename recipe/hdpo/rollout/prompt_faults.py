"""A row's plain and privileged prompt side by side: what may differ between them, and what may not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from recipe.hdpo.rollout.chat_template import NotRendered, Rendered, decode, render

Messages = Sequence[Mapping[str, str]]

# Words of markup around a turn, such as <<SYS>> and <</SYS>>; more of them are a text.
MARKUP_WORDS = 3
_ROLES = {"system", "user"}
_OTHER_TEMPLATE = "set another actor_rollout_ref.model.custom_chat_template"
_NO_OPTIONS = ", or leave hdpo.privileged.chat_template_kwargs empty"
_OTHER_PLACE = f"set hdpo.privileged.placement=user, or {_OTHER_TEMPLATE.removeprefix('set ')}"


class PromptPair:
    """A row's plain and privileged prompt.

    Example:
        ``PromptPair(builder, [{"role": "user", "content": "2+3=?"}], [{"role": "user", "content": "2+3=? It is 5."}])``

    Args:
        builder: see :func:`~recipe.hdpo.rollout.chat_template.make_token_builder`.
        plain, privileged: chat messages, the second made from the first.
        privileged_builder: the same for the privileged prompt, with other options of the chat template; None: one for
            both.
    """

    def __init__(self, builder: Any, plain: Messages, privileged: Messages, privileged_builder: Any = None):
        self.builder, self.messages = builder, (plain, privileged)
        self.privileged_builder = builder if privileged_builder is None else privileged_builder
        self.in_system = privileged[0]["role"] == "system" and privileged[0] != plain[0]
        self._has_options = self.privileged_builder is not builder
        self._way_out = _OTHER_PLACE if self.in_system else _OTHER_TEMPLATE
        self._way_out += _NO_OPTIONS if self._has_options else ""
        # The third: the privileged messages with the plain prompt's options.
        self._plain = self._privileged = self._same_options = Rendered([], "")

    @property
    def text(self) -> str:
        """The privileged prompt with its special tokens, once :meth:`fault` has looked at it."""
        return self._privileged.text

    def fault(self) -> str | None:
        """Why the privileged prompt must not be used, with the way out; continues "the privileged prompt of ROW"."""
        try:
            self._plain = render(self.builder, self.messages[0])
        except NotRendered as reason:
            return (
                f"cannot be made, as the chat template refuses even the plain prompt ({reason}), of which verl would "
                "cut the beginning (BOS) off: mend the row's messages (has it a system message?)"
            )
        try:
            self._privileged = self._same_options = render(self.privileged_builder, self.messages[1])
            if self._has_options:
                self._same_options = render(self.builder, self.messages[1])
        except NotRendered as reason:
            return (
                f"is refused by the chat template ({reason}), and verl would cut the beginning (BOS) off: "
                f"{self._way_out}"
            )
        if self._plain.ids == self._same_options.ids:
            turn = "the system turn" if self.in_system else "what the user's message shows"
            return f"is the plain prompt, since the chat template drops {turn}; teacher = student: {self._way_out}"
        return self._lost_text() or self._other_beginning() or self._other_end()

    def options_matter(self) -> bool:
        """Whether the chat template makes another privileged prompt with the options of its own than without."""
        return self._same_options.ids != self._privileged.ids

    def difference(self) -> str | None:
        """What else one of the prompts has and the other has not (a default system prompt), to be said."""
        plain, privileged = self._before_problem()
        if only_plain := self._words(_only_in(plain, privileged)):
            return (
                f"lacks what the chat template adds to the plain prompt: {only_plain!r}. The teacher does not read it: "
                f"{_OTHER_PLACE}, or give the rows a system message of their own"
            )
        only_privileged = self._words(_only_in(privileged, plain))
        if len(only_privileged.split()) > MARKUP_WORDS:
            return f"has what the chat template does not add to the plain prompt: {only_privileged!r}"
        return None

    def _lost_text(self) -> str | None:
        plain, privileged = self.messages
        asked = [("the problem", self._plain, _last_user(plain))]
        asked.append(("the user's message", self._privileged, _last_user(privileged)))
        if self.in_system:
            asked.insert(0, ("the solution in the system turn", self._privileged, privileged[0]["content"]))
        for name, prompt, text in asked:
            if self._place(prompt.text, text) is None:
                return (
                    f"does not hold {name} whole: the chat template leaves it out or changes it. It should hold "
                    f"{text[:200]!r}, and the prompt is {prompt.text[:400]!r}: {self._way_out}"
                )
        return None

    def _other_beginning(self) -> str | None:
        opening = self._opening()
        opening = opening[: _common(opening, self._plain.ids)]
        if self._privileged.ids[: len(opening)] == opening:
            return None
        first = decode(self.builder.tokenizer, opening)
        return f"does not begin with {first}, as the plain prompt does, but with {self.text[:80]!r}: {self._way_out}"

    def _other_end(self) -> str | None:
        plain, privileged = self.messages
        place = self._place(self.text, _last_user(privileged))
        end = self.text[place[1] :].lstrip() if place else ""
        before = self._plain.text.removesuffix(end)
        same = before + end == self._plain.text
        if same and any(before.rstrip().endswith(form) for form in self._forms(_last_user(plain))):
            return None
        way_out = self._way_out
        if self._has_options:
            way_out = (
                "teacher and student read a response behind the same last tokens. Set the option of "
                "hdpo.privileged.chat_template_kwargs that changes them in data.apply_chat_template_kwargs too, or "
                "leave it out"
            )
        return f"ends in {end[-200:]!r}, and the plain prompt in {self._plain.text[-200:]!r}: {way_out}"

    def _opening(self) -> list[int]:
        """The special tokens that begin every prompt: those before the first turn that no second turn brings back."""
        tokenizer = self.builder.tokenizer
        special = {*tokenizer.all_special_ids, *(i for i, token in self._added().items() if token.special)}
        user, assistant = {"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}
        try:
            one, two = (render(self.builder, turns).ids for turns in ([user], [user, assistant, user]))
        except NotRendered:  # a template for one turn
            one, two, special = self._plain.ids, [], {tokenizer.bos_token_id}
        end = next((n for n, i in enumerate(one) if i not in special or two.count(i) > one.count(i)), len(one))
        return one[:end]

    def _added(self) -> dict[int, Any]:
        """The tokens that a tokenizer has beside its model's, by id; not every kind of tokenizer names them."""
        return getattr(self.builder.tokenizer, "added_tokens_decoder", {})

    def _forms(self, text: str) -> tuple[str, str]:
        """A text as it may stand in a prompt: as it is, and as the tokenizer gives it back (one may lower-case it);
        without the white space around it, which many templates trim."""
        tokenizer = self.builder.tokenizer
        return text.strip(), decode(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"]).strip()

    def _place(self, prompt: str, text: str) -> tuple[int, int] | None:
        """Where a text stands last in a prompt; None where it does not."""
        return next(((at, at + len(form)) for form in self._forms(text) if (at := prompt.rfind(form)) >= 0), None)

    def _before_problem(self) -> tuple[str, str]:
        """What stands in front of the last user message, in both prompts; without what shows the solution."""
        plain, privileged = self.messages
        pairs = ((self._plain, plain), (self._same_options, privileged))
        places = [self._place(prompt.text, _last_user(messages)) for prompt, messages in pairs]
        heads = [p.text[: at[0]] for p, at in zip((self._plain, self._same_options), places, strict=True) if at]
        if self.in_system:
            own = plain[0]["content"] if plain[0]["role"] == "system" else ""
            added = self._place(heads[1], privileged[0]["content"].removeprefix(own))
            if added is not None:
                before = heads[1][: added[0]]
                heads[1] = (before.rstrip() if own else before) + heads[1][added[1] :]
        return heads[0], heads[1]

    def _words(self, text: str) -> str:
        """A text without special tokens and names of roles; empty where nothing to read is left."""
        for token in self._added().values():
            text = text.replace(token.content, " ")
        left = [word for word in text.split() if word.lower() not in _ROLES]
        return text.strip() if re.search(r"\w\w", " ".join(left)) else ""


def _last_user(messages: Messages) -> str:
    return next(message["content"] for message in reversed(messages) if message["role"] == "user")


def _common(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many items two sequences have in common at their beginning."""
    return next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def _only_in(text: str, other: str) -> str:
    """What a text has and another one has not, between their common beginning and their common end."""
    start = _common(text, other)
    rest, others = text[start:], other[start:]
    return rest[: len(rest) - _common(rest[::-1], others[::-1])]
