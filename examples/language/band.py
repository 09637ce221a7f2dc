"""Whether a model and the problems in words suit HDPO: pass@1, cliffs, and how far the reference helps.

    python -m examples.language.band --model models/words-base [--split train] [--show 20]

``python -m recipe.hdpo.preflight`` measures the same by vLLM, from the parquet files; this needs transformers alone.
"""

import argparse
import random
from collections.abc import Sequence

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_preprocess.word_problems import HELDOUT
from data_preprocess.words import HELDOUT_WEIGHTS, WEIGHTS, by_weight, draw
from examples.language.words_rates import Sampled, by_difficulty, print_rates, rates, sample, show


def table(plain: Sequence[Sampled], privileged: Sequence[Sampled]) -> dict[str, dict[str, float]]:
    """Rates by difficulty, then by family, then of all problems."""
    rows = by_difficulty(plain, privileged)
    for family in dict.fromkeys(s.problem.family for s in plain):
        of_family = [[s for s in part if s.problem.family == family] for part in (plain, privileged)]
        rows[family] = rates(*of_family)
    return dict(sorted(rows.items())) | {"all": rates(plain, privileged)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Rates of a model on problems in words.")
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--split", default="train", choices=["train", "tune", "test", HELDOUT])
    parser.add_argument("--problems", type=int, default=120, help="in the proportions of the split")
    parser.add_argument("--n", type=int, default=8, help="K, plain responses per problem")
    parser.add_argument("--privileged-n", type=int, default=4, help="J, responses per problem with the reference")
    parser.add_argument("--show", type=int, default=0, help="print this many of either kind, to read")
    parser.add_argument("--seed", type=int, default=0, help="of problems and samples")
    args = parser.parse_args(argv)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model).eval()
    weights = HELDOUT_WEIGHTS if args.split == HELDOUT else WEIGHTS
    problems = draw({args.split: by_weight(args.problems, weights)}, args.seed)[args.split]
    torch.manual_seed(args.seed)
    plain = sample(model, tokenizer, problems, False, args.n)
    privileged = sample(model, tokenizer, problems, True, args.privileged_n)
    rng = random.Random(args.seed)
    show(plain, False, args.show, rng)
    show(privileged, True, args.show, rng)
    print_rates(table(plain, privileged))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
