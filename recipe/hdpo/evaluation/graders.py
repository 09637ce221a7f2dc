"""The name of a grader: all that decides a score or an extracted answer. Results name the grader that scored them."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from recipe.hdpo.evaluation.problems import file_sha256
from recipe.hdpo.reward import GRADER_VERSION

REWARD_FILE = Path(__file__).resolve().parents[1] / "reward.py"
# Results from before graders had versions have a digest of the files' bytes instead.
_NAME_OF_DIGEST = {
    "09fea437167a1698f0a735b90a93a15126fb554699e189520a0f0dff8abe0f4c": "hdpo 1, math-verify 0.9.0",
}


def grader_name(reward_file: Path) -> str:
    """The name of the grader in a reward's file, for example ``hdpo 1, math-verify 0.9.0``.

    The recipe's own files are named by :data:`~recipe.hdpo.reward.GRADER_VERSION`. Another file is named by the digest
    of its bytes, followed by the recipe's version, which says how an answer is extracted that the file does not return.
    """
    own = f"hdpo {GRADER_VERSION}, math-verify {version('math-verify')}"
    return own if reward_file.resolve() == REWARD_FILE else f"{file_sha256(reward_file)}, {own}"


def grader_of_digest(digest: str) -> str:
    """The name of a grader that a result names by its digest; the digest itself where it has no version."""
    return _NAME_OF_DIGEST.get(digest, digest)
