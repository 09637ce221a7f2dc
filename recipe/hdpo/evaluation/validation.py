"""Unbiased pass@k (:mod:`recipe.hdpo.evaluation.passk`) of the trainer's validation samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from recipe.hdpo.evaluation.passk import pass_at_k, powers_of_two


def validation_passk(
    uids: Sequence[str],
    scores: Sequence[float],
    n: int,
    success_reward: float = 1.0,
    data_sources: Sequence[str] | None = None,
) -> dict[str, float]:
    """Unbiased pass@k for k = 1, 2, 4, ... <= n of every data source.

    A rollout that was lost counts as a failure, as in verl's own validation accuracy: a uid with fewer than n
    scores is filled up, and the number filled in is returned as ``val-hdpo/<data_source>/lost_samples`` (left
    out when 0).

    Args:
        uids: the prompt's id for each sample, length N.
        scores: the sample's reward, length N; a sample is correct when it reaches ``success_reward`` (NaN
            never does).
        n: samples per prompt (``rollout.val_kwargs.n``).
        success_reward: R = 1.
        data_sources: the sample's data source, length N; left out, all belong to one source called ``all``.

    Returns:
        ``{"val-hdpo/<data_source>/pass@<k>": value}``, each the mean over the source's prompts.

    Raises:
        ValueError: lengths differ, n < 1, or a uid with more than n samples.
    """
    sources = ["all"] * len(uids) if data_sources is None else list(data_sources)
    if not len(uids) == len(scores) == len(sources):
        raise ValueError(
            f"validation pass@k: {len(uids)} uids, {len(scores)} scores and {len(sources)} data sources; "
            "pass one of each per sample."
        )
    if n < 1:
        raise ValueError(f"validation pass@k: n={n}; set rollout.val_kwargs.n to at least 1.")
    seen: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for uid, score, source in zip(uids, scores, sources, strict=True):
        seen[str(source)][str(uid)].append(bool(score >= success_reward))
    metrics: dict[str, float] = {}
    for source, by_uid in seen.items():
        for uid, correct in by_uid.items():
            if len(correct) > n:
                raise ValueError(
                    f"validation pass@k: uid {uid} of {source} has {len(correct)} samples, more than n={n}; "
                    "give every prompt its own uid, and n as in rollout.val_kwargs.n."
                )
        solved_P = np.array([sum(correct) for correct in by_uid.values()])
        for k in powers_of_two(n):
            metrics[f"val-hdpo/{source}/pass@{k}"] = float(pass_at_k(n, solved_P, k).mean())
        lost = n * len(by_uid) - sum(len(correct) for correct in by_uid.values())
        if lost:
            metrics[f"val-hdpo/{source}/lost_samples"] = float(lost)
    return metrics
