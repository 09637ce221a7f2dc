import itertools
import json
import random
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_preprocess.word_problems import Problem, problems
from examples.demo.model_folder import RECORD
from examples.demo.sums_model import PRIVILEGED_TEMPLATE, encode_batch
from examples.language import band, make_words_model, words_model, words_rates
from examples.language.words_model import ProblemSource, Shape, copy_chat, make_model, make_tokenizer, sample_chat
from examples.language.words_rates import Sampled, rates

TINY = Shape(hidden=32, layers=1, heads=1)
STEPS = ["--steps", "2", "--batch", "2", "--eval-problems", "1", "--hidden", "32", "--layers", "1"]


@pytest.fixture(scope="module")
def tokenizer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words_model, "TOKENIZER_PROBLEMS", 40)
        return make_tokenizer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "words"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words_model, "TOKENIZER_PROBLEMS", 40)
        patch.setattr(make_words_model, "THREADS", 1)
        patch.setattr(words_rates, "MAX_RESPONSE", 4)
        assert make_words_model.main(["--out", str(out), *STEPS]) == 0
    return out


def test_the_folder_holds_a_model_of_the_tokenizers_vocabulary_and_how_it_was_made(folder):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.model_type == "qwen2"
    assert model.config.vocab_size == len(tokenizer) == words_model.VOCABULARY
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    chat = [{"role": "user", "content": "1 + 2 ="}]
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>user\n1 + 2 =<|im_end|>\n<|im_start|>assistant\n"
    )
    made = json.loads((folder / RECORD).read_text())
    assert made["settings"]["steps"] == 2 and made["settings"]["plain_weights"] == words_model.PLAIN_WEIGHTS
    assert set(made["results"]) == set(words_model.PLAIN_WEIGHTS)


def test_a_second_run_does_nothing_and_other_settings_are_one_clear_error(folder, capsys):
    assert make_words_model.main(["--out", str(folder), *STEPS]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert make_words_model.main(["--out", str(folder), *STEPS, "--seed", "1"]) == 2
    assert "made with other settings (seed)" in capsys.readouterr().err


def test_every_digit_is_a_token_and_texts_come_back(tokenizer):
    text = 'How many "x"? 1907-25=1882\n#### 1882 Ä 漢'
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    digits = [token for token in tokenizer.convert_ids_to_tokens(ids) if any(c.isdigit() for c in token)]
    assert digits == list("19072518821882")
    assert not any(re.search(r"\d.|.\d", token) for token in tokenizer.get_vocab())


def test_words_of_the_problems_are_single_tokens(tokenizer):
    for word in (" arithmetic", " legs", " equation", " letter", " which", "####"):
        assert len(tokenizer(word)["input_ids"]) == 1


def test_the_first_chats_repeat_random_steps_and_the_others_are_of_problems(tokenizer, monkeypatch):
    rng = random.Random(0)
    chats = [copy_chat(rng) for _ in range(50)]
    assert all(user == response and re.fullmatch(r"(\d+[-+*/]\d+=\d+\n?)+", user) for user, response in chats)
    assert len(set(chats)) == 50
    seen: list[list[tuple[str, str]]] = []
    monkeypatch.setattr(make_words_model, "COPY_CHATS", 3)
    monkeypatch.setattr(make_words_model, "COPY_SHARE", 0.5)
    monkeypatch.setattr(make_words_model, "backward", lambda model, tokenizer, chats: seen.append(chats) or 0.0)
    make_words_model.train(make_words_model.Settings(steps=2, batch=2, shape=TINY), tokenizer)
    assert [len(chats) for chats in seen] == [3, 2, 2]
    assert [user == response for chats in seen for user, response in chats] == [True] * 3 + [False] * 4


def test_the_base_model_is_trained_on_no_problem_of_a_split():
    source, rng = ProblemSource(), random.Random(0)
    shown = {
        sample_chat(source, privileged, rng)[0].partition("\nReference:\n")[0] for privileged in [False, True] * 600
    }
    assert len(shown) > 1000
    others = {
        problem.text
        for difficulty in ("chain_sum_3x1", "leg_counting_2", "simple_equations_10", "letter_counting_3")
        for problem in itertools.islice(problems(*difficulty.rsplit("_", 1), words_model.CHAT_SEED), 400)
        if problem.part != "base"
    }
    # From the same generators and seeds, so that they would be among the chats if the hash did not keep them apart.
    assert len(others) > 500 and not others & shown


def test_a_privileged_chat_shows_the_responses_numbers_in_words_and_half_of_them_are_random():
    source, rng = ProblemSource(), random.Random(1)
    true = 0
    for _ in range(200):
        user, response = sample_chat(source, True, rng)
        problem, _, reference = user.partition("\nReference:\n")
        assert user == PRIVILEGED_TEMPLATE.format(problem=problem, solution=reference)
        assert "=" not in reference
        assert set(re.findall(r"-?\d+(?=\n|$)", response)) <= set(re.findall(r"-?\d+", reference))
        true += words_rates.arithmetic(response) == 1.0
    # Of 200 with chance one half, and few random ones that happen to be true.
    assert 65 < true < 145


def test_a_plain_chat_is_the_problem_and_its_valid_steps():
    source, rng = ProblemSource(), random.Random(2)
    for _ in range(50):
        user, response = sample_chat(source, False, rng)
        assert "Reference" not in user and words_rates.arithmetic(response) == 1.0 and "\n#### " in response


def test_the_same_seed_gives_the_same_weights(tokenizer):
    torch.set_num_threads(1)
    settings = make_words_model.Settings(steps=2, batch=2, shape=TINY)
    first, second = (make_words_model.train(settings, tokenizer).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_sorted_parts_of_a_batch_give_the_gradient_of_the_mean_over_all_learned_tokens(tokenizer, monkeypatch):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    chats = [("1 + 2 =", "1+2=3\n#### 3"), ("x", "#### 1"), ("a longer text of a user", "5\n6\n7\n8\n#### 9")]
    model = make_model(tokenizer, TINY)
    ids, labels = encode_batch(chats, tokenizer)
    whole = model(input_ids=ids, labels=labels).loss
    whole.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    monkeypatch.setattr(make_words_model, "MICRO_BATCH", 2)
    assert make_words_model.backward(model, tokenizer, chats) == pytest.approx(whole.item(), rel=1e-5)
    for name, p in model.named_parameters():
        assert torch.allclose(p.grad, wanted[name], rtol=1e-3, atol=1e-6)


def test_rates_of_sampled_responses_are_those_worked_by_hand():
    def sampled(name, *responses):
        return Sampled(
            Problem("chain_sum", "3x1", name, (1, ("+", 1), ("+", int(name))), (2, 2 + int(name))), responses
        )

    plain = [sampled("1", "1+1=2\n2+1=3\n#### 3", "1+1=5\n#### 3"), sampled("2", "#### 5", "no")]
    privileged = [sampled("1", "1+1=2\n#### 3", "#### 4"), sampled("2", "1+1=3\n#### 4", "1+1=2\n#### 4")]
    assert rates(plain, privileged) == {
        "problems": 2,
        "pass@1": 0.5,
        "cliffs": 0.5,
        "valid": 0.5,
        "privileged": 0.75,
        "privileged_on_cliffs": 1.0,
        "privileged_valid": pytest.approx(2 / 3),
    }


def test_samples_stand_in_the_order_of_the_problems_whatever_is_generated_together(tokenizer, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(words_rates, "MAX_RESPONSE", 3)
    monkeypatch.setattr(words_rates, "ROWS", 4)
    source = ProblemSource()
    chosen = [source.take(d, 1)[0] for d in ("letter_counting_6", "chain_sum_3x1", "leg_counting_4")]
    found = words_rates.sample(make_model(tokenizer, TINY).eval(), tokenizer, chosen, True, n=2)
    assert [s.problem for s in found] == chosen and {len(s.responses) for s in found} == {2}


def test_the_band_is_told_by_difficulty_by_family_and_of_all(folder, monkeypatch, capsys):
    monkeypatch.setattr(words_rates, "MAX_RESPONSE", 4)
    assert band.main(["--model", str(folder), "--split", "heldout", "--problems", "4", "--n", "2", "--show", "1"]) == 0
    out = capsys.readouterr().out
    names = [line.split()[0] for line in out.splitlines() if line.startswith(("letter_counting", "all"))]
    assert names == ["letter_counting", *(f"letter_counting_{n}" for n in (3, 4, 5, 6)), "all"]
    assert out.count("How many times does the letter") == 2 and out.count("Reference:") == 1


def test_a_width_that_heads_of_32_do_not_fill_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        make_words_model.main(["--out", str(tmp_path / "m"), "--hidden", "48"])
    assert "multiple of 32" in capsys.readouterr().err
