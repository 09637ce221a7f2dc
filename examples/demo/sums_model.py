"""The parts of the demo's base model: its byte-level tokenizer, its untrained Qwen2, and the chats it learns from.

    plain        the user turn is the problem; the response is the worked solution
    privileged   the reference solution follows the problem in the user turn; the response copies it

make_sums_model.py trains and evaluates the model.
"""

import random

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import GenerationConfig, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from data_preprocess.sums import problem_text, solution_text

PRIVILEGED_TEMPLATE = "{problem}\nReference:\n{solution}"

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FEWEST_TERMS = 2
# Shares of plain sums of 2 and 3 numbers: there are nine times as many sums of 3 as of 2.
PLAIN_WEIGHTS = (1.0, 3.0)
PRIVILEGED_TERMS = (2, 3, 4, 5, 6)
MAX_NUMBER = 9
# Share of the privileged chats whose reference is made up of random numbers.
RANDOM_REFERENCES = 0.5
MAX_POSITIONS = 512


def make_tokenizer() -> PreTrainedTokenizerBase:
    """Byte-level BPE without merges: 256 byte symbols (ids 0 to 255) and the ChatML tokens (256 to 258)."""
    # Sorted, so that the ids do not depend on the order in which the library lists its alphabet.
    vocab = {symbol: i for i, symbol in enumerate([*sorted(ByteLevel.alphabet()), PAD, START, END])}
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=[],
        unk_token=PAD,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        model_max_length=MAX_POSITIONS,
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerBase) -> Qwen2ForCausalLM:
    """A Qwen2 with random weights whose vocabulary is exactly the tokenizer's."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        # About 1/sqrt(hidden): with the usual 0.02 a model this narrow is much slower to learn copying.
        initializer_range=0.09,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


def random_solution(lines: int, rng: random.Random) -> str:
    """A text in the form of a worked solution whose numbers mean nothing: it can only be copied."""
    steps = [f"{rng.randint(1, 54)}+{rng.randint(1, 9)}={rng.randint(1, 54)}" for _ in range(lines)]
    return "\n".join([*steps, f"#### {rng.randint(1, 54)}"])


def sample_terms(size: int, rng: random.Random) -> list[int]:
    return [rng.randint(1, MAX_NUMBER) for _ in range(size)]


def sample_chat(size: int, privileged: bool, rng: random.Random) -> tuple[str, str]:
    """(user turn, response) of one training chat about a sum of ``size`` numbers."""
    terms = sample_terms(size, rng)
    problem, solution = problem_text(terms), solution_text(terms)
    if not privileged:
        return problem, solution
    if rng.random() < RANDOM_REFERENCES:
        solution = random_solution(len(terms) - 1, rng)
    return PRIVILEGED_TEMPLATE.format(problem=problem, solution=solution), solution


def chat_prompt(user: str, tokenizer: PreTrainedTokenizerBase) -> str:
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": user}], tokenize=False, add_generation_prompt=True
    )


def encode_batch(chats: list[tuple[str, str]], tokenizer: PreTrainedTokenizerBase) -> tuple[torch.Tensor, torch.Tensor]:
    """(input ids, labels), both (chats, longest); labels are -100 outside the response and its end token.

    Padding stands on the right, where causal attention never sees it, so no attention mask is needed.
    """
    prompts = tokenizer([chat_prompt(user, tokenizer) for user, _ in chats])["input_ids"]
    responses = tokenizer([response + END for _, response in chats])["input_ids"]
    longest = max(len(p) + len(r) for p, r in zip(prompts, responses, strict=True))
    ids = torch.full((len(chats), longest), tokenizer.pad_token_id)
    labels = torch.full((len(chats), longest), -100)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor(prompt + response)
        labels[row, len(prompt) : end] = torch.tensor(response)
    return ids, labels
