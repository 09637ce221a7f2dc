"""vLLM's offline engine: seeds, and the real engine on a random two-layer model."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from recipe.hdpo.evaluation.generate import Engine, Sampling, sample_seed
from recipe.hdpo.evaluation.problems import Problem
from recipe.hdpo.evaluation.records import GREEDY, read_results


def test_every_sample_has_its_own_seed_that_never_changes():
    assert sample_seed(0, "4dde32c54b7ab3cb", 0) == sample_seed(0, "4dde32c54b7ab3cb", 0)
    seeds = {sample_seed(s, p, i) for s in range(5) for p in ("a", "b", "c") for i in range(100)}
    assert len(seeds) == 5 * 3 * 100
    assert all(0 <= seed < 2**62 for seed in seeds)
    # torch's CPU generator reads the low 32 bits only
    assert len({seed % 2**32 for seed in seeds}) == len(seeds)


def test_samples_are_drawn_as_asked_and_the_greedy_one_is_greedy():
    sampling = Sampling(n=4, temperature=0.6, top_p=0.9, top_k=20, max_tokens=8, seed=5)
    sampled = Engine._params(dict, "p", 3, sampling)
    assert sampled == {
        **{"temperature": 0.6, "top_p": 0.9, "top_k": 20, "max_tokens": 8, "detokenize": False},
        "seed": sample_seed(5, "p", 3),
    }
    assert Engine._params(dict, "p", GREEDY, sampling) == {"temperature": 0.0, "max_tokens": 8, "detokenize": False}


class Tokenizer:
    """A token for each letter; the options of the chat template come first."""

    chat_template = "there is one"

    def apply_chat_template(self, prompt, add_generation_prompt, return_dict, **options):
        assert add_generation_prompt and not return_dict
        return [ord(letter) for letter in f"{options}{prompt[0]['content']}"]


def _engine(tokenizer, limit):
    engine = Engine.__new__(Engine)
    engine.tokenizer, engine._limit, engine._model, engine._options, engine.device = tokenizer, limit, "m", {}, "cpu"
    return engine


def _problems(*texts):
    return [Problem(text, "made", "1", [{"role": "user", "content": text}], text, {}) for text in texts]


def test_prompts_are_made_with_the_options_of_the_chat_template():
    found = _engine(Tokenizer(), None).encode(_problems("a"), 8, {"enable_thinking": False})
    assert "".join(map(chr, found["a"])) == "{'enable_thinking': False}a"


def test_prompts_that_leave_no_room_are_refused_by_name_and_never_cut():
    engine = _engine(Tokenizer(), 20)
    assert len(engine.encode(_problems("a" * 10), 8)["a" * 10]) == 12
    with pytest.raises(ValueError, match=r"1 of 2 prompts \(the longest has 13 tokens; first: b{11}\) .* 20 positions"):
        engine.encode(_problems("a", "b" * 11), 8)


def test_the_context_holds_the_longest_of_all_prompts_whatever_came_last():
    engine = _engine(Tokenizer(), 20)
    engine.encode(_problems("a" * 10), 8)
    engine.make_room({"b": [1] * 3}, 8)
    assert engine._options["max_model_len"] == 20
    engine.make_room({"c": [1] * 5000}, 8)
    assert (engine._options["max_model_len"], engine._options["max_num_batched_tokens"]) == (5008, 5008)
    assert (engine.room(8), _engine(Tokenizer(), None).room(8)) == (12, None)


def test_a_model_without_a_chat_template_is_refused():
    tokenizer = Tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        _engine(tokenizer, 20).encode(_problems("a"), 8)


def _random_model(folder):
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate([*letters, "<|endoftext|>", "<|im_end|>"])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=128
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}={% endif %}"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config).eval()
    model.save_pretrained(folder)
    return model, tokenizer


@pytest.mark.e2e
def test_the_real_engine_is_greedy_like_transformers_and_repeats_its_samples_by_seed(tmp_path):
    import torch

    from recipe.hdpo.evaluate import main

    model, tokenizer = _random_model(tmp_path / "model")
    rows = [
        {
            "data_source": "made",
            "prompt": [{"role": "user", "content": f"{i}+1"}],
            "reward_model": {"style": "rule", "ground_truth": str(i + 1)},
            "extra_info": {"difficulty": "1"},
        }
        for i in range(6)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "test.parquet")
    (tmp_path / "reward.py").write_text("def compute_score(**kw):\n    return float('1' in kw['solution_str'])\n")
    command = ["--model", f"{tmp_path}/model", "--data", f"{tmp_path}/test.parquet", "--n", "3", "--max-tokens", "8"]
    command += ["--reward", f"{tmp_path}/reward.py", "--out"]
    assert main([*command, f"{tmp_path}/one"]) == 0
    # half of the samples are taken away: the same command draws the same ones again
    whole = read_results(tmp_path / "one").samples
    lines = (tmp_path / "one" / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "one" / "samples.jsonl").write_bytes(b"".join(lines[::2]))
    assert main([*command, f"{tmp_path}/one"]) == 0
    again = read_results(tmp_path / "one").samples
    key = lambda s: (s.problem_id, s.sample)  # noqa: E731
    assert sorted(again, key=key) == sorted(whole, key=key)

    for s in whole:
        assert s.truncated == (s.tokens == 8)
        if s.sample == GREEDY:
            ids = torch.tensor([tokenizer.apply_chat_template(s.prompt, add_generation_prompt=True, return_dict=False)])
            out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
            assert s.response == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    sampled = [s.response for s in whole if s.sample != GREEDY]
    assert len(set(sampled)) > len(sampled) // 2
    settings = json.loads((tmp_path / "one" / "meta.json").read_text())["settings"]
    assert settings["device"] in ("cpu", "cuda")
    assert settings["weights_dtype"] == "F32"
