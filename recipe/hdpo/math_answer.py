r"""Find the final answer in a response. What the answer means is for answers/text.py and the files that it names.

    "...\n#### 18"  or  "... \\boxed{18}."   ->  "18"

The marker that stands last counts, where

- what a model thinks (before ``</think>``, after a ``<think>`` that stays open) is no part of the response;
- a box that is left open, or is empty, says that there is no answer;
- a Markdown heading (``#### Verification``) is no marker where another marker has an answer.
"""

import re
from collections import deque

from recipe.hdpo.answers.text import LABEL, MATH_NAMES

_HASH_LINE = re.compile(r"####[^\S\r\n]*([^\s#](?:(?!####)[^\r\n])*)")
_BOXED_OR_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}\\]|[{}]")
_THINKING = re.compile(r"[<\[](/?)(?:think(?:ing)?|thought|reasoning)\s*[>\]]", re.IGNORECASE)

# "**", "1." and the like, then the first word of what may be a heading.
_FIRST_WORD = re.compile(r"[^\w\\$({\[+\-.]*(?:(?:\d+|[A-Za-z])[.)]\s+)?(?:\*\*|__)?([^\W\d_]{2,})")
_NAMED_VALUE = re.compile(r"[^\W\d_][\w ]*=")

# What may stand between two boxes that are one answer, and the name before a box.
_BETWEEN_BOXES = re.compile(
    r"(?:[\s,;&$]|\\q?quad|\\[,;: ()\[\]]|\\text\s*\{\s*(?:and|or)\s*\}|\b(?:and|or|as well as)\b"
    r"|\\?[A-Za-z]\w*(?:_\{\w+\})?\s*=)*"
)
_NAME_BEFORE_BOX = re.compile(r"(?<![\w\\])(\\?[A-Za-z]\w*(?:_\{\w+\})?\s*=)\s*(?:\$|\\[(\[])?\s*$")
_MAX_BETWEEN = 60
# Of so many of each kind, the last ones, is looked for the answer.
_MAX_MARKERS = 50

# (where the box opens, where its content starts and ends)
_Box = tuple[int, int, int]


def after_thinking(response: str) -> str:
    """The response without what stands in think tags: after the last closing tag, up to one that is left open."""
    start, end = 0, len(response)
    if "<" not in response and "[" not in response:
        return response
    for tag in _THINKING.finditer(response):
        if tag.group(1):
            start, end = tag.end(), len(response)
        else:
            end = min(end, tag.start())
    return response[start:end]


# Said where a prompt does, and the reward is not told so.
THOUGHTS_ARE_GRADED = (
    "the chat template ends the prompt with an open think tag: a thought that the length limit cuts off would be "
    "graded as an answer"
)
# The recipe's rewards that read an answer and no program, as a path or a module.
_OWN_REWARD = re.compile(r"recipe[./]hdpo[./](?:gym_)?reward(?:\.py)?$")


def reads_answers(reward: object) -> bool:
    """Whether the file or module of a reward function is one of the recipe's that grade an answer."""
    return bool(_OWN_REWARD.search(str(reward)))


def opens_thinking(prompt: str) -> bool:
    """Whether a prompt ends in an open think tag, as some chat templates make it: responses then have a closing one."""
    tags = list(_THINKING.finditer(prompt[-_MAX_BETWEEN:]))
    return bool(tags) and not tags[-1].group(1) and not prompt[-_MAX_BETWEEN:][tags[-1].end() :].strip()


def with_opened_thinking(response: str) -> str:
    """The response with the think tag that its prompt ended in."""
    return f"<think>{response}"


def final_answer(response: str) -> str | None:
    """The text that the last marker points to, stripped; None where there is no marker with a text.

    A marker is "####" followed by text on the same line, or a ``\\boxed{...}`` (also ``\\fbox``) with balanced braces.
    """
    text = after_thinking(response)
    boxed_at, boxed = _last_box(text)
    hashed = _last_hash_line(text, boxed_at)
    answer = boxed if hashed is None else hashed
    return answer.strip() or None


def joint_answer(response: str) -> str | None:
    """Several boxes that end the response as one list: "k = 45, n = 2" of ``k=\\boxed{45}`` and ``n=\\boxed{2}``.

    They belong together where little but a comma, "and", "or" or a name stands between them. None with fewer than two.
    """
    text = after_thinking(response)
    if text.count("boxed") + text.count("fbox") < 2:
        return None
    boxes, last_opened = _boxes(text)
    if not boxes or boxes[-1][0] != last_opened or _last_hash_line(text, last_opened) is not None:
        return None
    run = [boxes[-1]]
    for box in boxes[-2 : -_MAX_MARKERS - 1 : -1]:
        between = text[box[2] + 1 : run[-1][0]]
        if len(between) > _MAX_BETWEEN or not between or not _BETWEEN_BOXES.fullmatch(between):
            break
        run.append(box)
    if len(run) < 2:
        return None
    return ", ".join(_with_name(text, box) for box in reversed(run))


def _with_name(text: str, box: _Box) -> str:
    name = _NAME_BEFORE_BOX.search(text[max(0, box[0] - _MAX_BETWEEN) : box[0]])
    return (name.group(1) if name else "") + text[box[1] : box[2]]


def _last_hash_line(text: str, boxed_at: int) -> str | None:
    """The text after the last "####" behind ``boxed_at``; a heading only where no other marker has an answer."""
    lines = deque(_HASH_LINE.finditer(text, boxed_at + 1), maxlen=_MAX_MARKERS)
    contents = [line.group(1).rstrip("# \t") for line in reversed(lines)]
    answers = (content for content in contents if not _is_heading(content))
    return next(answers, contents[0] if contents and boxed_at < 0 else None)


def _is_heading(line: str) -> bool:
    word = _FIRST_WORD.match(line)
    if word is None or word.group(1) in MATH_NAMES:
        return False
    rest = line.lstrip("*_` ")
    return not LABEL.match(rest) and not _NAMED_VALUE.match(rest)


def _last_box(text: str) -> tuple[int, str]:
    """(position, content) of the box that opens last, with no content if it is left open; (-1, "") without one."""
    boxes, last_opened = _boxes(text)
    if boxes and boxes[-1][0] == last_opened:
        return last_opened, text[boxes[-1][1] : boxes[-1][2]]
    return last_opened, ""


def _boxes(text: str) -> tuple[list[_Box], int]:
    """The closed boxes in the order in which they open, and where the last one opens, closed or not (-1: none).

    One pass with a stack of open braces, so the time is linear in the response, however deep it nests.
    """
    if "boxed" not in text and "fbox" not in text:
        return [], -1
    open_braces: list[tuple[int, int, bool]] = []
    closed: list[_Box] = []
    last_opened = -1
    for match in _BOXED_OR_BRACE.finditer(text):
        token = match.group()
        if token == "}":
            if open_braces:
                at, content, is_boxed = open_braces.pop()
                if is_boxed:
                    closed.append((at, content, match.start()))
        elif token == "{" or len(token) > 2:
            open_braces.append((match.start(), match.end(), token != "{"))
            if token != "{":
                last_opened = match.start()
    return sorted(closed), last_opened
