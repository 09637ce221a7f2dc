"""Grade-school word problems with worked solutions from reasoning-gym's ``gsm_symbolic``, as verl parquet.

The problems are generated, so nothing is downloaded; the worked solution is the generator's own ("answer_cot"). It is
kept only where it ends with the answer, and always ends with the line "#### <answer>".

    python data_preprocess/gsm_symbolic.py --out data/gsm_symbolic
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recipe.hdpo.answers.compare import same_answer
from recipe.hdpo.data.presets import HASHED
from recipe.hdpo.data.rows import (
    DataError,
    Rejected,
    at_least,
    build_row,
    print_next,
    print_report,
    reject_reason,
    run_cli,
    write_splits,
)

DATA_SOURCE = "hdpo/gsm_symbolic"

# The generator's own last sentences; the recipe's instruction takes their place.
GENERATOR_INSTRUCTION = "Give the result as your final answer. Do not include units."

# Drawn per wanted row before giving up: templates repeat, and some solutions are rejected.
MAX_DRAWS_PER_ROW = 20


def clean_problem(question: str) -> str:
    """The question without the generator's instruction and without runs of white space."""
    return " ".join(question.replace(GENERATOR_INSTRUCTION, "").split())


def clean_solution(cot: str, answer: str) -> str | None:
    """The worked solution, ending with "#### <answer>"; None where its own last line gives another answer or none.

    Of equal numbers the answer's form is taken: a last line "#### 8.0" becomes "#### 8" for the answer 8.
    """
    steps, marker, stated = cot.rpartition("####")
    if not marker or not steps.strip() or same_answer(stated, answer) is not True:
        return None
    lines = (line.rstrip() for line in steps.strip().splitlines())
    return "\n".join([*lines, f"#### {answer}"])


def difficulty_of(metadata: dict[str, Any]) -> str:
    """The generator's difficulty as text, "1" where it gives none."""
    value = metadata.get("difficulty")
    return f"{value:g}" if isinstance(value, (int, float)) else "1"


def collect(problems: Iterable[dict[str, Any]], wanted: int, rejected: Rejected) -> list[dict[str, Any]]:
    """The first ``wanted`` usable and distinct problems of the generator, as arguments of ``build_row``."""
    kept: dict[str, dict[str, Any]] = {}
    with tqdm(total=wanted, desc="problems", unit="row") as bar:
        for number, item in enumerate(problems):
            if len(kept) == wanted:
                break
            problem, answer = clean_problem(item["question"]), str(item["answer"]).strip()
            solution = clean_solution(str(item["metadata"].get("answer_cot") or ""), answer)
            prompt_text = f"{problem}\n{HASHED}"
            reason = reject_reason(problem, solution, answer, prompt_text)
            if reason == "no solution":
                reason = "no solution that ends with the answer"
            if reason is None and problem in kept:
                reason = "the same problem as an earlier row"
            if reason is not None:
                rejected.add(reason, number)
                continue
            kept[problem] = {
                "problem": problem,
                "solution": solution,
                "answer": answer,
                "difficulty": difficulty_of(item["metadata"]),
                "prompt_text": prompt_text,
            }
            bar.update()
    return list(kept.values())


def run(args: argparse.Namespace) -> None:
    try:
        import reasoning_gym
    except ImportError as error:
        raise DataError(f"the generator is not installed ({error}): pip install reasoning-gym") from error
    wanted = args.train_size + args.test_size
    generator = reasoning_gym.create_dataset("gsm_symbolic", size=MAX_DRAWS_PER_ROW * wanted, seed=args.seed)
    rejected = Rejected()
    kept = collect((generator[i] for i in range(len(generator))), wanted, rejected)
    if len(kept) < wanted:
        raise DataError(
            f"the generator gave {len(kept)} usable problems in {len(generator)} draws, {wanted} were asked for: "
            "lower --train-size or --test-size"
        )
    splits = {
        split: [build_row(DATA_SOURCE, split=split, index=i, **fields) for i, fields in enumerate(part)]
        for split, part in (("train", kept[args.test_size :]), ("test", kept[: args.test_size]))
    }
    paths = write_splits(args.out, splits)
    print_report(paths, splits, rejected, [])
    print_next(paths)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="reasoning-gym's gsm_symbolic, as verl parquet.")
    parser.add_argument("--out", type=Path, required=True, help="folder for train.parquet and test.parquet")
    parser.add_argument("--train-size", type=at_least(1), default=2000, help="training rows")
    parser.add_argument("--test-size", type=at_least(1), default=200, help="test rows; none is in training")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    return run_cli(run, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
