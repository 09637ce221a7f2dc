"""Unbiased pass@k (:mod:`recipe.hdpo.evaluation.passk`) and greedy accuracy of the trainer's validation samples.

Every prompt that validation asked for counts: samples that were lost are failures, as in verl's own accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from recipe.hdpo.algorithm.cliff import is_success
from recipe.hdpo.evaluation.passk import pass_at_k, powers_of_two

# Number of samples asked for, by (data source, uid of the prompt): verl's `expected_acc_counts`.
Expected = Mapping[tuple[str, str], int]


def validation_passk(
    expected: Expected, uids: Sequence[str], scores: Sequence[float], success_reward: float = 1.0
) -> dict[str, float]:
    """Unbiased pass@k for k = 1, 2, 4, ... up to the fewest samples that a prompt of the source was to have.

    Args:
        expected: every prompt; one of which all samples were lost is in here only.
        uids: the prompt's uid of each sample, length N.
        scores: the sample's reward, length N; a sample is correct when it reaches ``success_reward`` (NaN never does).
        success_reward: R = 1.

    Returns:
        ``{"val-hdpo/<data_source>/pass@<k>": value}``, each the mean over the source's prompts, and
        ``val-hdpo/<data_source>/lost_samples`` where that is not 0.

    Raises:
        ValueError: lengths differ, a uid that was not asked for, or more samples of a prompt than were.
    """
    seen, solved = dict.fromkeys(_uids(expected), 0), dict.fromkeys(_uids(expected), 0)
    for uid, score in zip(uids, scores, strict=True):
        if uid not in seen:
            raise ValueError(f"validation pass@k: a sample of prompt {uid}, which was not asked for")
        seen[uid] += 1
        solved[uid] += is_success(score, success_reward)
    metrics: dict[str, float] = {}
    for source, prompts in _by_source(expected).items():
        n_P = np.array(list(prompts.values()))
        seen_P = np.array([seen[uid] for uid in prompts])
        if (seen_P > n_P).any():
            uid = list(prompts)[int((seen_P > n_P).argmax())]
            raise ValueError(f"validation pass@k: {seen[uid]} samples of prompt {uid}, {prompts[uid]} were asked for")
        solved_P = np.array([solved[uid] for uid in prompts])
        for k in powers_of_two(int(n_P.min())):
            metrics[f"val-hdpo/{source}/pass@{k}"] = float(pass_at_k(n_P, solved_P, k).mean())
        if lost := int((n_P - seen_P).sum()):
            metrics[f"val-hdpo/{source}/lost_samples"] = float(lost)
    return metrics


def greedy_accuracy(
    expected: Expected, uids: Sequence[str], greedy_scores: Sequence[float | None], success_reward: float = 1.0
) -> dict[str, float]:
    """Share of the prompts of every data source whose greedy rollout is correct; a lost one counts as wrong.

    Args:
        expected: every prompt.
        uids, greedy_scores: of every sample, length N; samples of a prompt agree.

    Returns:
        ``{"val-hdpo/<data_source>/greedy": value}``.
    """
    pairs = zip(uids, greedy_scores, strict=True)
    right = {uid for uid, score in pairs if score is not None and is_success(score, success_reward)}
    by_source = _by_source(expected)
    return {f"val-hdpo/{source}/greedy": len(right & set(uids)) / len(uids) for source, uids in by_source.items()}


def _uids(expected: Expected) -> list[str]:
    return [uid for _, uid in expected]


def _by_source(expected: Expected) -> dict[str, dict[str, int]]:
    by_source: dict[str, dict[str, int]] = {}
    for (source, uid), n in expected.items():
        by_source.setdefault(source, {})[uid] = n
    return by_source
