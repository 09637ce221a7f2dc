"""Show one kept cliff from end to end.

    python -m examples.demo.show_cliff outputs/demo-llm/run/rollouts/hdpo_kept/1.jsonl outputs/demo-llm/model

The divergence of every token is recomputed with the given model as both teacher (privileged prompt) and student (plain
prompt): the model at the start of the run, before any distillation.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipe.hdpo.algorithm.divergence import topk_divergence
from recipe.hdpo.algorithm.teacher_topk import teacher_topk

TOPK = 64


def main() -> None:
    """Print the first kept trajectory of the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kept", type=Path, help="hdpo_kept/STEP.jsonl of a run with trainer.rollout_data_dir")
    parser.add_argument("model", type=Path, help="Hugging Face folder")
    args = parser.parse_args()
    trajectory = json.loads(args.kept.read_text(encoding="utf-8").splitlines()[0])
    plain, privileged, response = (
        trajectory[f"hdpo_{name}"] for name in ("student_prompts", "teacher_prompts", "responses")
    )
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    tokens, divergence = token_divergence(model, tokenizer, plain, privileged, response)
    for title, text in (
        ("problem, as the student reads it", plain),
        ("privileged prompt, as the teacher reads it", privileged),
    ):
        print(f"\n=== {title} ===\n{text}")
    print(f"\n=== kept trajectory (step {trajectory['step']}) ===\n{response}")
    print(f"\n=== JSD_{TOPK} of each token, in nats (0 to 0.693); mean {sum(divergence) / len(divergence):.4f} ===")
    for token, value in zip(tokens, divergence, strict=True):
        print(f"{value:7.4f} {'#' * round(40 * value / 0.6931472):<40} {token!r}")


@torch.no_grad()
def token_divergence(model, tokenizer, plain: str, privileged: str, response: str) -> tuple[list[str], list[float]]:
    """JSD_k of every response token between the model after the privileged and after the plain prompt."""
    ids = tokenizer(response, add_special_tokens=False).input_ids

    def logits(prompt: str) -> torch.Tensor:
        prompt_ids = tokenizer(prompt, add_special_tokens=False).input_ids
        return model(torch.tensor([prompt_ids + ids])).logits[0, len(prompt_ids) - 1 : -1]

    teacher = teacher_topk(logits(privileged), TOPK)
    result = topk_divergence(logits(plain), teacher, torch.arange(len(ids)))
    return [tokenizer.decode([i]) for i in ids], result.per_token.tolist()


if __name__ == "__main__":
    main()
