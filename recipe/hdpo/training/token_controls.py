"""The controls of :mod:`recipe.hdpo.algorithm.token_controls` on the packed tokens of a micro-batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from recipe.hdpo.algorithm.softmax_rows import to_device
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK
from recipe.hdpo.algorithm.token_controls import clipped, entropy_weight, reliance_weight, saturated
from recipe.hdpo.algorithm.token_controls import reliance as of_trajectories
from recipe.hdpo.config import DivergenceConfig
from recipe.hdpo.training import mini_batch


def control_tokens(
    per_token_N: torch.Tensor,
    log_probs_N: torch.Tensor,
    info: Sequence[mini_batch.RowInfo],
    targets: Mapping[int, TeacherTopK],
    options: DivergenceConfig,
    reliance: RelianceGate,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What each packed token adds to the distillation term, before the division by N_tok.

    Args:
        per_token_N: (N,) divergence of the micro-batch's packed tokens, 0 where nothing is distilled.
        log_probs_N: (N,) the student's log-probabilities; that at n is of the token at n + 1.
        info: of the micro-batch's rows.
        targets: the teacher's top-k by row id.
        reliance: takes down the reliance of the micro-batch's trajectories.

    Returns:
        the controlled divergence, (N,), and sums over tokens for metrics: of a JSD, and of the controls that are on.
    """
    sums: dict[str, torch.Tensor] = {}
    controlled_N = clipped(per_token_N, options.clip)
    if options.clip is not None:
        sums["hdpo/clipped_tokens"] = (per_token_N > options.clip).sum()
    if options.kind == "jsd":
        sums["hdpo/saturated_tokens"] = saturated(per_token_N, options.beta).sum()
    positions_M, privileged = mini_batch.response_positions(info)
    positions_M = to_device(positions_M, per_token_N.device)
    rows = [targets[row.row_id] for row in privileged]
    lengths = [row.num_distilled for row in privileged]
    pair = _log_probs(log_probs_N, positions_M, rows)
    if pair is not None:
        reliance.take([row.row_id for row in privileged], *pair, lengths)
    if not options.weighs_tokens and reliance.least is None:
        return controlled_N, sums
    weights_M = torch.ones(len(positions_M), device=per_token_N.device)
    if rows and options.entropy_damping > 0:
        # On the host, where the top-k is.
        weights = entropy_weight(torch.cat([row.log_probs for row in rows]), options.entropy_damping)
        weights_M = weights_M * to_device(weights, per_token_N.device)
    if pair is not None and options.reliance_damping > 0:
        weights_M = weights_M * reliance_weight(*pair, lengths, options.reliance_damping)
    if pair is not None and len(positions_M) and reliance.least is not None:
        weights_M = weights_M * reliance.weights(privileged)
    weights_N = torch.zeros_like(per_token_N).index_put((positions_M,), weights_M.to(per_token_N.dtype))
    return controlled_N * weights_N, sums | {"hdpo/weight_mean": weights_N.detach().sum()}


def _log_probs(
    log_probs_N: torch.Tensor, positions_M: torch.Tensor, rows: Sequence[TeacherTopK]
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What student and teacher give to the distilled tokens, (M,) each; None where no teacher was read."""
    of_teacher = [row.response_log_probs for row in rows if row.response_log_probs is not None]
    if not of_teacher:
        return None
    teacher_M = to_device(torch.cat(of_teacher), log_probs_N.device).float()
    return log_probs_N.detach()[positions_M].float(), teacher_M


class RelianceGate:
    """The reliance of this rank's trajectories, and which of them it takes out of the distillation term.

    It is that of a trajectory's first forward in an update, so that later epochs neither drop it nor take it back.

    Args:
        least: the reliance below which the tokens of a trajectory weigh 0; None: none do.
    """

    def __init__(self, least: float | None) -> None:
        self.least = least
        self.found: dict[int, torch.Tensor] = {}

    def take(
        self, row_ids: Sequence[int], student_M: torch.Tensor, teacher_M: torch.Tensor, lengths: Sequence[int]
    ) -> None:
        """Note the reliance of some rows; without waiting for an accelerator."""
        values = of_trajectories(student_M, teacher_M, lengths)
        for row_id, value, length in zip(row_ids, values, lengths, strict=True):
            if length:
                self.found.setdefault(row_id, value)

    def weights(self, rows: Sequence[mini_batch.RowInfo]) -> torch.Tensor:
        """1 or 0 for each distilled token of some rows that were taken down, (M,)."""
        assert self.least is not None
        own = [row for row in rows if row.num_distilled]
        passes = torch.stack([self.found[row.row_id] for row in own]) >= self.least
        lengths = torch.tensor([row.num_distilled for row in own])
        return passes.float().repeat_interleave(to_device(lengths, passes.device))

    def pop(self) -> dict[int, float]:
        """By row id what was found since the last call; waits for the accelerator."""
        values = torch.stack(list(self.found.values())).tolist() if self.found else []
        found = dict(zip(self.found, values, strict=True))
        self.found = {}
        return found
