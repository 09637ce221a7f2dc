"""Texts for people to read: of single tokens, and shortened ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# What a decoder writes for bytes that are no whole character.
_BROKEN = "\ufffd"


def short(text: str, most: int) -> str:
    """A text of at most about ``most`` characters: its middle is left out, and how much is said."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters ...]\n{text[-half:]}"


def token_texts(ids: Sequence[int], decode: Callable[[list[int]], str]) -> list[str]:
    """The text of each token within its sequence; joined they are the whole.

    A token alone may be a part of a character, or lose the space before a word. So each is what it adds to those before
    it; where a character needs several tokens, its last one has it and the others are empty.

    Args:
        ids: of the sequence.
        decode: token ids to text.
    """
    texts: list[str] = []
    begin = done = 0
    for end in range(1, len(ids) + 1):
        before, now = decode(list(ids[begin:done])), decode(list(ids[begin:end]))
        is_last = end == len(ids)
        if len(now) > len(before) and (is_last or not now.endswith(_BROKEN)):
            texts.append(now[len(before) :])
            begin, done = done, end
        elif is_last or end - begin < 16:
            texts.append("")
        else:
            # No character has so many tokens: the bytes are broken.
            texts.append(now[len(before) :])
            begin, done = done, end
    return texts
