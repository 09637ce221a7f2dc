"""Time and peak memory from hidden states to their gradients: the fused head beside whole logits and verl's own.

    fused                 the recipe's fused head: log-probabilities, and JSD_k of a quarter of the tokens
    fused, PyTorch        the same without Triton's kernels
    fused, 4,096 a chunk  the same with longer chunks
    logits + JSD_k        the same from whole logits: the head's product, verl's log-probabilities, topk_divergence
    GRPO: fused, GRPO: logits
                          log-probabilities alone, of the recipe's fused head and from whole logits
    GRPO: verl's fused    verl's FusedLinearForPPO: log-probabilities and entropy, no divergence
    GRPO: verl's kernel   verl's Triton linear_cross_entropy, likewise
    products              the four matrix products of the fused head alone, in the same chunks

Figures are medians of forward and backward together; memory is the peak above hidden states, weight and teacher, so the
gradients of hidden states and weight are part of it.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from contextlib import nullcontext

import torch

from benchmarks.gpu.correct import without_kernels
from benchmarks.gpu.divergences import measure
from benchmarks.gpu.recording import Record, part_arguments
from recipe.hdpo.algorithm.divergence import topk_divergence
from recipe.hdpo.algorithm.fused_head import fused_head, head_topk
from recipe.hdpo.algorithm.head_chunks import HeadChunks, WeightGradient

Loss = Callable[[], torch.Tensor]
# Qwen2.5-Math-1.5B.
HIDDEN, VOCABULARY, K = 1536, 151_936, 64


class Bench:
    """Hidden states and a head of bf16, and the top-k of a slightly different teacher for the last quarter."""

    def __init__(self, tokens: int, hidden: int, vocabulary: int, k: int, device: str) -> None:
        torch.manual_seed(0)
        self.hidden_NH = torch.randn(tokens, hidden, dtype=torch.bfloat16, device=device).requires_grad_()
        weight = torch.randn(vocabulary, hidden, dtype=torch.bfloat16, device=device) * (3 / hidden**0.5)
        self.weight_VH = weight.requires_grad_()
        self.labels_N = torch.randint(vocabulary, (tokens,), device=device)
        self.rows_M = torch.arange(tokens - tokens // 4, tokens)
        part = self.hidden_NH.detach()[self.rows_M.to(device)]
        self.teacher = head_topk(part + 0.2 * torch.randn_like(part), self.weight_VH.detach(), k)

    def fused(self, distill: bool = True, chunk_size: int | None = None) -> torch.Tensor:
        """The recipe's."""
        options = {"teacher": self.teacher, "rows_M": self.rows_M} if distill else {}
        found = fused_head(self.hidden_NH, self.weight_VH, self.labels_N, chunk_size=chunk_size, **options)  # type: ignore[arg-type]
        loss = found.log_probs_N.sum()
        return loss if found.divergence is None else loss + found.divergence.per_token.sum()

    def logits(self, distill: bool = True) -> torch.Tensor:
        """As verl's engine computes with the recipe's loss."""
        from verl.utils.torch_functional import logprobs_from_logits

        from recipe.hdpo.training.loss import log_prob_backward_overwrites_logits

        logits = self.hidden_NH @ self.weight_VH.t()
        loss = torch.zeros((), device=logits.device)
        if distill:
            protect = log_prob_backward_overwrites_logits(logits)
            loss = topk_divergence(logits, self.teacher, self.rows_M, protect_logits=protect).per_token.sum()
        return loss + logprobs_from_logits(logits, self.labels_N, inplace_backward=True).sum()

    def verls_fused(self) -> torch.Tensor:
        """verl's default backend, torch."""
        from verl.utils.experimental.torch_functional import FusedLinearForPPO

        log_probs, _ = FusedLinearForPPO()(self.hidden_NH, self.weight_VH, self.labels_N)
        return log_probs.sum()

    def verls_kernel(self) -> torch.Tensor:
        """verl's backend triton."""
        from verl.utils.kernel.linear_cross_entropy import linear_cross_entropy

        log_probs, _ = linear_cross_entropy(self.hidden_NH[None], self.weight_VH, self.labels_N[None], 1.0, "none")
        # A product, as in verl's losses: its backward takes no expanded gradient, which is what a plain sum's is.
        return log_probs @ torch.ones_like(log_probs)

    def products(self) -> None:
        """Every product of the fused head, and nothing else."""
        chunks = HeadChunks(self.hidden_NH.detach(), self.weight_VH.detach(), None, None)
        spans, d_hidden = list(chunks.spans()), torch.empty_like(self.hidden_NH)
        d_weight = WeightGradient(self.weight_VH.detach(), len(spans))
        for span in spans:
            chunks.load(span)
        for span in spans:
            dz_CV = chunks.load(span)
            torch.mm(dz_CV, self.weight_VH.detach(), out=d_hidden[span])
            d_weight.add(dz_CV, self.hidden_NH.detach()[span])

    def losses(self, device: str) -> dict[str, Loss]:
        """What is compared; verl's kernel runs on a card only."""
        found: dict[str, Loss] = {
            "fused": self.fused,
            "fused, PyTorch": self.fused,
            "fused, 4,096 a chunk": lambda: self.fused(chunk_size=4096),
            "logits + JSD_k": self.logits,
            "GRPO: fused": lambda: self.fused(distill=False),
            "GRPO: logits": lambda: self.logits(distill=False),
            "GRPO: verl's fused": self.verls_fused,
        }
        return found | ({"GRPO: verl's kernel": self.verls_kernel} if device == "cuda" else {})

    def run(self, name: str, losses: dict[str, Loss]) -> Callable[[], object]:
        """Loss and backward of a variant; no gradient is left over from before."""

        def run() -> None:
            self.hidden_NH.grad = self.weight_VH.grad = None
            with without_kernels() if name.endswith("PyTorch") else nullcontext():
                if name == "products":
                    self.products()
                else:
                    losses[name]().backward()

        return run


def compare(record: Record, bench: Bench, device: str, rounds: int) -> None:
    """All variants, taking turns. One that does not fit the memory or cannot run is left out, and said to."""
    tokens = len(bench.hidden_NH)
    losses = bench.losses(device)
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in [*losses, "products"]}
    for number in range(1 + rounds):
        for name in list(runs):
            try:
                figures = measure(bench.run(name, losses), device)
            except Exception as error:  # out of memory, or a kernel that does not run on this card
                del runs[name]
                record.add(
                    f"{tokens} rows: {name}", milliseconds=None, why=f"{type(error).__name__}: {str(error)[:160]}"
                )
                continue
            finally:
                bench.hidden_NH.grad = bench.weight_VH.grad = None
            if number > 0:  # the first round warms up
                runs[name].append(figures)
                milliseconds, gib = (statistics.median(column) for column in zip(*runs[name], strict=True))
                record.add(f"{tokens} rows: {name}", milliseconds=milliseconds, extra_gib=gib)


def main() -> None:
    """Run the part."""
    args = part_arguments(__doc__)
    if args.device == "cpu":
        os.environ["VERL_PLATFORM"] = "cpu"
    record = Record(args.out, "head", args.device)
    on_card = args.device == "cuda"
    hidden, vocabulary, k, rounds = (HIDDEN, VOCABULARY, K, 3) if on_card else (32, 500, 16, 1)
    from verl.utils import torch_functional as verl_F

    from recipe.hdpo.algorithm.head_chunks import _adds_in_float32

    record.setting(
        hidden=hidden, vocabulary=vocabulary, k=k, dtype="bf16", rounds=rounds, distilled="a quarter of the rows",
        cross_entropy="flash-attn" if verl_F.FLAH_ATTN_CROSS_ENTROPY_LOSS_AVAILABLE else "verl's loop over rows",
        weight_gradient_added_in_the_product=_adds_in_float32(torch.device(args.device, 0), torch.bfloat16),
    )  # fmt: skip
    for tokens in (8_192, 32_768) if on_card else (64,):
        compare(record, Bench(tokens, hidden, vocabulary, k, args.device), args.device, rounds)
    record.finish()


if __name__ == "__main__":
    main()
