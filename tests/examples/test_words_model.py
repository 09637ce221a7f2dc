import itertools
import json
import random
import re
import shutil

import pytest
import torch
from reasoning_gym.arithmetic.leg_counting import ANIMALS
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_preprocess.word_families import FAMILIES, USUAL_LEGS
from data_preprocess.word_problems import Problem, problems
from examples.demo.model_folder import RECORD
from examples.demo.sums_model import PRIVILEGED_TEMPLATE, encode_batch, make_model, make_tokenizer
from examples.language import band, make_words_model, words_base, words_model, words_rates
from examples.language.words_model import PLAIN_WEIGHTS, ProblemSource, backward, sample_chat
from examples.language.words_rates import Sampled, rates
from examples.study.tasks import keep_adapter, weights_sha256
from recipe.hdpo.step_check import arithmetic

STEPS = ["--steps", "2", "--batch", "2", "--rank", "2", "--eval-problems", "1"]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer):
    """The demo's untrained model of 1 M weights in SmolLM2's place."""
    out = tmp_path_factory.mktemp("models") / "base"
    torch.manual_seed(0)
    make_model(tokenizer).to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def folder(base):
    out = base.with_name("words")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_words_model, "THREADS", 1)
        patch.setattr(words_rates, "MAX_RESPONSE", 4)
        assert make_words_model.main(["--base", str(base), "--out", str(out), *STEPS]) == 0
    return out


def test_the_folder_holds_the_merged_model_its_adapter_and_how_it_was_made(folder, base):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16 and tokenizer.eos_token == "<|im_end|>"
    chat = [{"role": "user", "content": "1 + 2 ="}]
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>user\n1 + 2 =<|im_end|>\n<|im_start|>assistant\n"
    )
    made = json.loads((folder / RECORD).read_text())
    assert made["settings"]["steps"] == 2 and made["settings"]["plain_weights"] == PLAIN_WEIGHTS
    assert made["settings"]["base_sha256"] == weights_sha256(base)
    assert set(made["results"]) == {f"{family}_{size}" for family, kind in FAMILIES.items() for size in kind.sizes}
    assert str(base.parent) not in (folder / "adapter" / "adapter_config.json").read_text()


def test_the_weights_are_the_bases_plus_the_adapters_product_rounded_once(folder, base):
    before, after = (load_file(path / "model.safetensors") for path in (base, folder))
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    scale = 2.0  # alpha over rank
    changed = 0
    for name, value in before.items():
        low = [adapter.get(f"base_model.model.{name.removesuffix('.weight')}.lora_{x}.weight") for x in "BA"]
        wanted = value if low[0] is None else (value.double() + scale * low[0].double() @ low[1].double()).bfloat16()
        assert torch.equal(after[name], wanted)
        changed += not torch.equal(after[name], value)
    assert changed >= 7


def test_a_second_run_does_nothing_and_other_settings_are_one_clear_error(folder, base, capsys):
    command = ["--base", str(base), "--out", str(folder), *STEPS]
    assert make_words_model.main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert make_words_model.main([*command, "--seed", "1"]) == 2
    assert "made with other settings (seed)" in capsys.readouterr().err
    assert make_words_model.main(["--base", str(folder / "no"), "--out", str(folder)]) == 2
    assert "holds no model.safetensors" in capsys.readouterr().err


def test_the_same_weights_come_of_the_adapter_that_is_kept(folder, base, tmp_path, capsys):
    kept = tmp_path / "kept"
    keep_adapter(folder, kept)
    assert sorted(path.name for path in kept.iterdir()) == ["adapter", RECORD, "model.sha256"]
    command = ["--base", str(base), "--out", str(tmp_path / "again"), "--kept", str(kept)]
    assert make_words_model.main([*command, *STEPS]) == 0
    assert weights_sha256(tmp_path / "again") == weights_sha256(folder) == weights_sha256(kept)
    assert (tmp_path / "again" / RECORD).read_text() == (folder / RECORD).read_text()
    shutil.rmtree(tmp_path / "again")
    assert make_words_model.main([*command, *STEPS, "--rank", "3"]) == 2
    assert "made with other settings (rank)" in capsys.readouterr().err
    shutil.rmtree(kept / "adapter")
    assert make_words_model.main([*command, *STEPS]) == 2
    assert "holds no adapter" in capsys.readouterr().err


def test_of_a_base_that_is_cut_these_layers_are_left_and_the_kept_adapter_gives_the_same_weights(
    base, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(words_base, "VOCABULARY_CHATS", 20)
    monkeypatch.setattr(words_rates, "MAX_RESPONSE", 4)
    monkeypatch.setattr(make_words_model, "THREADS", 1)
    whole, named = AutoModelForCausalLM.from_pretrained(base), tmp_path / "named"
    for number, layer in enumerate(whole.model.layers, 1):
        layer.input_layernorm.weight.data.fill_(number)
    whole.save_pretrained(named)
    AutoTokenizer.from_pretrained(base).save_pretrained(named)
    command = ["--base", str(named), *STEPS, "--layers", "3", "0"]
    assert make_words_model.main([*command, "--out", str(tmp_path / "cut")]) == 0
    model, tokenizer = (kind.from_pretrained(tmp_path / "cut") for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert model.config.num_hidden_layers == 2 and model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == tokenizer("<|im_end|>")["input_ids"][0]
    # The adapter is added to matrices alone.
    assert [float(layer.input_layernorm.weight[0]) for layer in model.model.layers] == [4.0, 1.0]
    keep_adapter(tmp_path / "cut", tmp_path / "kept")
    assert make_words_model.main([*command, "--out", str(tmp_path / "again"), "--kept", str(tmp_path / "kept")]) == 0
    assert weights_sha256(tmp_path / "again") == weights_sha256(tmp_path / "cut")
    assert make_words_model.main(["--base", str(named), *STEPS, "--layers", "9", "--out", str(tmp_path / "no")]) == 2
    assert "name different ones of 0 to 3" in capsys.readouterr().err


def test_the_base_model_sees_no_new_animal_and_its_vocabulary_has_every_one(monkeypatch):
    new = [animal for animal, legs in ANIMALS.items() if legs not in USUAL_LEGS]
    assert len(new) == 12
    source, rng = ProblemSource(), random.Random(0)
    chats = [" ".join(sample_chat(source, privileged, rng)) for privileged in [False, True] * 300]
    assert not [chat for chat in chats for animal in new if re.search(rf"\b{animal}s?\b", chat)]
    monkeypatch.setattr(words_base, "VOCABULARY_CHATS", 600)
    texts = " ".join(words_base.vocabulary_texts())
    assert all(f" {animal}" in texts for animal in new)


def test_references_with_made_up_legs_hold_together_and_stand_in_privileged_chats_alone():
    [problem] = ProblemSource().take("leg_counting_2", 1)
    made_up = words_model.with_made_up_legs(problem, random.Random(1))
    assert made_up.text == problem.text and made_up.about != problem.about
    assert arithmetic(made_up.solution()) == 1.0
    for animal, count, legs in made_up.about:
        assert f"{animal}: {count}*{legs}={count * legs}" in made_up.solution()
        assert f"Each {animal} has {legs} legs, so {count} ha" in made_up.reference()
    source, rng = ProblemSource(), random.Random(0)
    true = {False: 0, True: 0}
    for privileged in [False, True] * 300:
        _, response = sample_chat(source, privileged, rng)
        steps = re.findall(r"^(\w[\w ]*): \d+\*(\d+)=", response, re.MULTILINE)
        true[privileged] += all(ANIMALS[animal] == int(legs) for animal, legs in steps)
    assert true[False] == 300 > true[True] > 150


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


def test_a_privileged_chat_shows_the_responses_numbers_in_words():
    source, rng = ProblemSource(), random.Random(1)
    for _ in range(100):
        user, response = sample_chat(source, True, rng)
        problem, _, reference = user.partition("\nReference:\n")
        assert user == PRIVILEGED_TEMPLATE.format(problem=problem, solution=reference)
        assert "=" not in reference and words_rates.arithmetic(response) == 1.0
        assert set(re.findall(r"-?\d+(?=\n|$)", response)) <= set(re.findall(r"-?\d+", reference))


def test_a_plain_chat_is_the_problem_and_its_valid_steps():
    source, rng = ProblemSource(), random.Random(2)
    for _ in range(50):
        user, response = sample_chat(source, False, rng)
        assert "Reference" not in user and words_rates.arithmetic(response) == 1.0 and "\n#### " in response


def test_the_same_seed_gives_the_same_adapter(base, tmp_path):
    torch.set_num_threads(1)
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        settings = make_words_model.Settings(steps=2, batch=2, rank=2, seed=seed)
        make_words_model.train(settings, base, tmp_path / name)
        found.append(load_file(tmp_path / name / "adapter_model.safetensors"))
    first, second, other = found
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("share", "least", "most"), [(0.4, 120, 200), (0.1, 15, 70)])
def test_the_wanted_share_of_the_chats_shows_the_reference(base, tmp_path, monkeypatch, share, least, most):
    seen = []

    def remember(model, tokenizer, chats):
        seen.extend("Reference:" in user for user, _ in chats)
        return 0.0

    monkeypatch.setattr(make_words_model, "backward", remember)
    settings = make_words_model.Settings(steps=4, batch=100, privileged_share=share)
    make_words_model.train(settings, base, tmp_path / "a")
    assert len(seen) == 400 and least < sum(seen) < most


def test_bf16_multiplies_in_bfloat16_and_learns_in_single_precision(base, tmp_path, monkeypatch):
    seen = []

    def remember(model, tokenizer, chats):
        seen.append((torch.is_autocast_enabled("cpu"), {p.dtype for p in model.parameters() if p.requires_grad}))
        return 0.0

    monkeypatch.setattr(make_words_model, "backward", remember)
    for number, bf16 in enumerate((False, True)):
        make_words_model.train(make_words_model.Settings(steps=1, bf16=bf16), base, tmp_path / str(number))
    assert seen == [(False, {torch.float32}), (True, {torch.float32})]


def test_sorted_parts_of_a_batch_give_the_gradient_of_the_mean_over_all_learned_tokens(tokenizer, monkeypatch):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    chats = [("1 + 2 =", "1+2=3\n#### 3"), ("x", "#### 1"), ("a longer text of a user", "5\n6\n7\n8\n#### 9")]
    model = make_model(tokenizer)
    ids, labels = encode_batch(chats, tokenizer)
    whole = model(input_ids=ids, labels=labels).loss
    whole.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    monkeypatch.setattr(words_model, "MICRO_BATCH", 2)
    assert backward(model, tokenizer, chats) == pytest.approx(whole.item(), rel=1e-5)
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
    found = words_rates.sample(make_model(tokenizer).eval(), tokenizer, chosen, True, n=2)
    assert [s.problem for s in found] == chosen and {len(s.responses) for s in found} == {2}


def test_the_band_is_told_by_difficulty_by_family_and_of_all(folder, monkeypatch, capsys):
    monkeypatch.setattr(words_rates, "MAX_RESPONSE", 4)
    assert band.main(["--model", str(folder), "--split", "heldout", "--problems", "4", "--n", "2", "--show", "1"]) == 0
    out = capsys.readouterr().out
    names = [line.split()[0] for line in out.splitlines() if line.startswith(("letter_counting", "all"))]
    assert names == ["letter_counting", "letter_counting_3", "letter_counting_4", "all"]
    assert out.count("How many times does the letter") == 2 and out.count("Reference:") == 1
