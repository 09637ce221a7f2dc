"""The controls of :mod:`recipe.hdpo.algorithm.token_controls` on the packed tokens of a micro-batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from recipe.hdpo.algorithm.softmax_rows import to_device
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK
from recipe.hdpo.algorithm.token_controls import clipped, entropy_weight, reliance_weight
from recipe.hdpo.config import DivergenceConfig
from recipe.hdpo.training import mini_batch


def control_tokens(
    per_token_N: torch.Tensor,
    log_probs_N: torch.Tensor,
    info: Sequence[mini_batch.RowInfo],
    targets: Mapping[int, TeacherTopK],
    options: DivergenceConfig,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What each packed token adds to the distillation term, before the division by N_tok.

    Args:
        per_token_N: (N,) divergence of the micro-batch's packed tokens, 0 where nothing is distilled.
        log_probs_N: (N,) the student's log-probabilities; that at n is of the token at n + 1.
        info: of the micro-batch's rows.
        targets: the teacher's top-k by row id.

    Returns:
        the controlled divergence, (N,), and sums over tokens for the metrics of the controls that are on.
    """
    sums: dict[str, torch.Tensor] = {}
    controlled_N = clipped(per_token_N, options.clip)
    if options.clip is not None:
        sums["hdpo/clipped_tokens"] = (per_token_N > options.clip).sum()
    if not options.weighs_tokens:
        return controlled_N, sums
    positions_M, privileged = mini_batch.response_positions(info)
    positions_M = to_device(positions_M, per_token_N.device)
    rows = [targets[row.row_id] for row in privileged]
    weights_M = torch.ones(len(positions_M), device=per_token_N.device)
    if rows and options.entropy_damping > 0:
        # On the host, where the top-k is.
        weights = entropy_weight(torch.cat([row.log_probs for row in rows]), options.entropy_damping)
        weights_M = weights_M * to_device(weights, per_token_N.device)
    if rows and options.reliance_damping > 0:
        teacher_M = torch.cat([_response_log_probs(row) for row in rows])
        lengths = [row.num_distilled for row in privileged]
        student_M = log_probs_N.detach()[positions_M].float()
        teacher_M = to_device(teacher_M, per_token_N.device)
        weights_M = weights_M * reliance_weight(student_M, teacher_M, lengths, options.reliance_damping)
    weights_N = torch.zeros_like(per_token_N).index_put((positions_M,), weights_M.to(per_token_N.dtype))
    return controlled_N * weights_N, sums | {"hdpo/weight_mean": weights_N.detach().sum()}


def _response_log_probs(target: TeacherTopK) -> torch.Tensor:
    assert target.response_log_probs is not None, "the teacher pass kept no log-probabilities of the response"
    return target.response_log_probs
