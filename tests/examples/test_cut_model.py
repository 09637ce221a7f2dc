import random

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from examples.demo.sums_model import encode_batch, make_tokenizer
from examples.language import layer_order
from examples.language.cut_model import CutError, cut_embeddings, cut_layers, cut_vocabulary

SPECIAL = ["<|pad|>", "<|start|>", "<|end|>"]
WORDS = ["each", "cat", "has", "four", "legs", "so", "three", "of", "them", "have", "twelve", "two", "ants", "also"]


@pytest.fixture(scope="module")
def whole():
    """A byte-level BPE tokenizer of some hundred merges that splits digits, as SmolLM2's does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[*SPECIAL, "<|other|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = random.Random(0)
    tokenizer.train_from_iterator([" ".join(rng.choices(WORDS, k=8)) for _ in range(200)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def make_model(vocabulary, tied=True):
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            tie_word_embeddings=tied,
        )
    ).eval()


def test_texts_are_split_as_before_every_other_text_can_be_written_and_fewer_tokens_are_left(whole):
    texts = ["each cat has 4 legs", "<|start|>so 12 ants<|end|>"]
    smaller, ids = cut_vocabulary(whole, texts, SPECIAL)
    for text in texts:
        assert smaller.tokenize(text) == whole.tokenize(text)
        assert [ids[i] for i in smaller(text)["input_ids"]] == whole(text)["input_ids"]
    assert 256 + len(SPECIAL) < len(smaller) == len(ids) == len(set(ids)) < len(whole)
    other = "twelve legs, naïve ☃ 三"
    assert smaller.decode(smaller(other)["input_ids"]) == other
    assert smaller.convert_tokens_to_ids("<|end|>") == smaller("<|end|>")["input_ids"][0]
    assert "<|other|>" not in smaller.get_vocab()


@pytest.mark.parametrize("tied", [True, False])
def test_the_logits_of_the_tokens_that_are_left_are_the_whole_models(whole, tied):
    smaller, ids = cut_vocabulary(whole, ["each cat has 4 legs"], SPECIAL)
    model = make_model(len(whole), tied)
    rows = smaller("each cat has 4 legs", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        before = model(torch.tensor(ids)[rows]).logits[..., ids]
        cut_embeddings(model, ids)
        after = model(rows).logits
    assert after.shape[-1] == len(ids) == model.config.vocab_size
    assert torch.allclose(before, after, atol=1e-6)
    same = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert same is tied


def test_a_cut_model_goes_through_the_layers_that_are_left_also_with_a_cache_and_from_a_folder(tmp_path):
    model = make_model(64)
    rows = torch.arange(10)[None]
    layers = [model.model.layers[i] for i in (0, 3)]
    cut_layers(model, [0, 3])
    assert list(model.model.layers) == layers and model.config.num_hidden_layers == 2
    with torch.no_grad():
        whole = model(rows).logits
        first = model(rows[:, :6], use_cache=True)
        rest = model(rows[:, 6:], past_key_values=first.past_key_values).logits
        assert torch.allclose(whole[:, 6:], rest, atol=1e-5)
        model.save_pretrained(tmp_path)
        assert torch.equal(LlamaForCausalLM.from_pretrained(tmp_path)(rows).logits, whole)


@pytest.mark.parametrize("layers", [[], [0, 0], [0, 4], [-1]])
def test_layers_that_are_not_there_are_one_clear_error(layers):
    with pytest.raises(CutError, match="name different ones of 0 to 3"):
        cut_layers(make_model(8), layers)


def test_each_time_the_layer_goes_that_costs_least_then():
    # 1 is needed least of all, but where 1 is gone, 0 is needed and 3 is not.
    cost = {0: 2.0, 1: 1.0, 2: 8.0, 3: 4.0}

    def loss(left):
        gone = {0, 1, 2, 3} - set(left)
        return sum(cost[layer] for layer in gone) + 16.0 * (gone >= {0, 1})

    found = list(layer_order.removals(4, loss, tried=3))
    assert found == [(1.0, [0, 2, 3]), (5.0, [0, 2])]
    # Of the two that cost least at first only one is tried again.
    assert list(layer_order.removals(4, loss, tried=1)) == [(1.0, [0, 2, 3]), (19.0, [2, 3])]


def test_the_loss_of_some_layers_is_that_of_the_model_that_is_cut_to_them(tmp_path, capsys):
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    make_model(len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    chats = [("1 + 2 =", "#### 3"), ("a longer one", "1+1=2\n#### 2")]
    model = LlamaForCausalLM.from_pretrained(tmp_path).eval()
    found = layer_order.loss_of_layers(model, tokenizer, chats)([0, 2])
    cut = LlamaForCausalLM.from_pretrained(tmp_path).eval()
    cut_layers(cut, [0, 2])
    ids, labels = encode_batch(chats, tokenizer)
    assert found == pytest.approx(cut(input_ids=ids, labels=labels).loss.item(), rel=1e-5)
    assert layer_order.main(["--model", str(tmp_path), "--chats", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["4", "3", "2"]
