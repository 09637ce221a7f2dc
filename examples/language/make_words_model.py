"""A base model for problems in words: SmolLM2-135M-Instruct, fine-tuned for a quarter of an hour by an adapter (LoRA).

It learns from two kinds of chat, with the loss on the response alone:

    plain        sums, equations, legs of animals and letters to count, of the sizes in ``PLAIN_WEIGHTS``
    privileged   the same, with the reference in words in the user turn

Animals with an unusual number of legs are in neither, so it must guess how many these have. Many references make the
numbers of legs up, so that it reads them there, and translates what it reads into its own form. No problem of the data
set is trained on (``PARTS`` in data_preprocess/word_problems.py).

    python -m examples.demo.make_smollm2 --out models/smollm2
    python -m examples.language.make_words_model --base models/smollm2 --out models/words-base

With ``--layers`` only these layers of it are left, and of its vocabulary what the chats need: a smaller model that a
step of training takes a fifth of the time of, and whose adapter needs more steps and a higher rank.

The adapter, a few MB, stands in ``adapter/`` of the finished model. ``--kept`` names a folder with that and the record
``made_by.json``: it is merged again, into the same weights on every machine, and nothing is trained.
"""

import argparse
import json
import math
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Waiting threads sleep instead of spinning: several times faster where other processes use the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data_preprocess.word_problems import HELDOUT
from examples.demo.model_folder import RECORD, FolderError, is_made, publish
from examples.language.cut_model import CutError
from examples.language.words_base import VOCABULARY_CHATS, load
from examples.language.words_model import MADE_UP_LEGS, PLAIN_WEIGHTS, ProblemSource, backward, sample_chat
from examples.language.words_rates import by_difficulty, print_rates, sample
from recipe.hdpo.evaluation.problems import file_sha256

THREADS = min(2, os.cpu_count() or 1)
# Of the generator, for the problems of the evaluation.
EVAL_SEED = 30_000_000
EVAL_SAMPLES = 4
ADAPTER = "adapter"


@dataclass(frozen=True)
class Settings:
    """What decides the finished model; a model made with the same settings is not made again."""

    steps: int = 120
    batch: int = 8
    lr: float = 1e-3
    rank: int = 16
    seed: int = 0
    privileged_share: float = 0.4
    layers: tuple[int, ...] = ()
    bf16: bool = False

    def own(self) -> dict[str, Any]:
        """JSON-able. All layers and tokens, and single precision, are what a record without a word of them means."""
        own = asdict(self) | {"plain_weights": PLAIN_WEIGHTS, "made_up_legs": MADE_UP_LEGS}
        if self.layers:
            own |= {"layers": list(self.layers), "vocabulary_chats": VOCABULARY_CHATS}
        return {name: value for name, value in own.items() if value or name not in ("layers", "bf16")}

    def record(self, base: Path) -> dict[str, Any]:
        """As written beside the model."""
        return self.own() | {"base_sha256": file_sha256(base / "model.safetensors")}


DEFAULT = Settings()


def train(settings: Settings, base: Path, adapter: Path) -> None:
    """Train an adapter and save it, in half precision. AdamW, linear warm-up, cosine decay to 0."""
    torch.manual_seed(settings.seed)
    rng = random.Random(settings.seed)
    source = ProblemSource()
    model, tokenizer = load(base, settings.layers, torch.float32)
    config = LoraConfig(r=settings.rank, lora_alpha=2 * settings.rank, target_modules="all-linear")
    model = get_peft_model(model, config).train()
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.0)
    warmup = max(1, settings.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / settings.steps))),
    )
    bar = tqdm(range(settings.steps), desc="training the adapter", unit="step", mininterval=1.0)
    for _ in bar:
        chats = [sample_chat(source, rng.random() < settings.privileged_share, rng) for _ in range(settings.batch)]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bf16):
            loss = backward(model, tokenizer, chats)
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
    # Not where it lies on this machine.
    model.peft_config["default"].base_model_name_or_path = base.name
    model.half().save_pretrained(str(adapter), save_embedding_layers=False)
    (adapter / "README.md").unlink(missing_ok=True)


def merge(base: Path, layers: Sequence[int], adapter: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base with the adapter in its weights, in bfloat16. Added up in double precision: what is rounded to bfloat16
    then does not depend on the order in which a processor adds."""
    model, tokenizer = load(base, layers, torch.float64)
    merged = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=False).merge_and_unload()
    return merged.to(torch.bfloat16).eval(), tokenizer


def evaluate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int, seed: int
) -> dict[str, dict[str, float]]:
    """Rates by difficulty on ``count`` problems each that the model was not trained on, sampled at temperature 1."""
    torch.manual_seed(seed)
    # Tuning problems, so that what is reported stays unseen.
    source = ProblemSource(("tune", HELDOUT), EVAL_SEED)
    problems = [problem for difficulty in source.streams for problem in source.take(difficulty, count)]
    plain, privileged = (sample(model, tokenizer, problems, shown, EVAL_SAMPLES) for shown in (False, True))
    return by_difficulty(plain, privileged)


def make(out: Path, base: Path, kept: Path | None, settings: Settings, eval_problems: int) -> None:
    """Train or take the adapter, merge and save; nothing to do where ``out`` holds the model of these settings already.

    Raises:
        FolderError: ``base`` is no model; ``out`` or ``kept`` holds something else.
    """
    if not (base / "model.safetensors").exists():
        raise FolderError(f"{base} holds no model.safetensors: make it with python -m examples.demo.make_smollm2")
    record = settings.record(base)
    if is_made(out, record):
        print(f"{out} already holds the model of these settings; nothing to do")
        return
    if kept and not (is_made(kept, record) and (kept / ADAPTER).is_dir()):
        raise FolderError(f"{kept} holds no adapter")
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        adapter = kept / ADAPTER if kept else Path(folder)
        if kept is None:
            train(settings, base, adapter)
        model, tokenizer = merge(base, settings.layers, adapter)
        if kept is None:
            table = evaluate(model.float(), tokenizer, eval_problems, settings.seed)
            print_rates(table)
        else:
            table = json.loads((kept / RECORD).read_text())["results"]

        def save(folder: Path) -> None:
            model.to(torch.bfloat16).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            shutil.copytree(adapter, folder / ADAPTER)

        publish(out, record, table, save)
    print(f"saved {model.num_parameters():,} parameters to {out}")


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Settings]:
    """The command line, and what it says of the finished model."""
    parser = argparse.ArgumentParser(description="Make a base model for problems in words.")
    parser.add_argument("--base", type=Path, required=True, help="folder of SmolLM2-135M-Instruct, or of a words model")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--kept", type=Path, help="folder of an adapter and its record: merge it, train nothing")
    parser.add_argument("--steps", type=int, default=DEFAULT.steps, help="optimizer steps")
    parser.add_argument("--batch", type=int, default=DEFAULT.batch, help="chats per step")
    parser.add_argument("--lr", type=float, default=DEFAULT.lr, help="peak learning rate")
    parser.add_argument("--rank", type=int, default=DEFAULT.rank, help="rank of the adapter")
    parser.add_argument("--privileged-share", type=float, default=DEFAULT.privileged_share, help="of the chats")
    parser.add_argument("--bf16", action="store_true", help="multiply in bfloat16: faster where the processor has it")
    parser.add_argument("--layers", type=int, nargs="+", default=[], help="leave these of its layers (default all)")
    parser.add_argument("--seed", type=int, default=DEFAULT.seed, help="same seed and threads, same adapter")
    parser.add_argument("--eval-problems", type=int, default=10, help="evaluated problems per difficulty")
    args = parser.parse_args(argv)
    if min(args.steps, args.batch, args.rank, args.eval_problems) < 1 or args.lr <= 0:
        parser.error("--steps, --batch, --rank and --eval-problems must be 1 or more, --lr above 0")
    if not 0 <= args.privileged_share <= 1:
        parser.error("--privileged-share must lie between 0 and 1")
    shares = (args.seed, args.privileged_share)
    return args, Settings(args.steps, args.batch, args.lr, args.rank, *shares, tuple(args.layers), args.bf16)


def main(argv: Sequence[str] | None = None) -> int:
    args, settings = parse(argv)
    try:
        make(args.out, args.base, args.kept, settings, args.eval_problems)
    except (FolderError, CutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("next: python -m data_preprocess.words --out data/words")
    return 0


if __name__ == "__main__":
    sys.exit(main())
