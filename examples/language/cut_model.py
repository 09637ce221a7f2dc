"""A smaller model out of a larger one: some of its layers, and of its vocabulary what given texts need.

What is left has learned to read, but no longer says anything: it must be trained before it is of use. The tokens that
stay keep their embeddings, and every text can still be written, since the 256 bytes stay.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast


class CutError(ValueError):
    """There is no such part of a model."""


# The field of a model's configuration that names the kind of each layer, where there is one.
LAYER_TYPES = "layer_types"


def cut_layers(model: PreTrainedModel, layers: Sequence[int]) -> None:
    """Leave these layers of a decoder, in this order. The rest of the model stays as it is.

    Raises:
        CutError: no layer, one twice, or one that the model does not have.
    """
    there = model.model.layers
    if not layers or len(set(layers)) < len(layers) or not set(layers) <= set(range(len(there))):
        raise CutError(f"layers {list(layers)}: name different ones of 0 to {len(there) - 1}")
    model.model.layers = torch.nn.ModuleList(there[i] for i in layers)
    for place, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = place
    model.config.num_hidden_layers = len(layers)
    if getattr(model.config, LAYER_TYPES, None):
        setattr(model.config, LAYER_TYPES, [getattr(model.config, LAYER_TYPES)[i] for i in layers])


def cut_vocabulary(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], special: Sequence[str]
) -> tuple[PreTrainedTokenizerBase, list[int]]:
    """A byte-level BPE tokenizer with the tokens of ``texts``, those that they are merged from, the bytes, and of the
    special tokens these. It splits ``texts`` as the whole one does.

    Returns:
        The tokenizer, and for each of its ids the id in the whole one.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary: dict[str, int] = state["model"]["vocab"]
    merges = [tuple(merge) for merge in state["model"]["merges"]]
    kept = {token for text in texts for token in tokenizer.tokenize(text)} & vocabulary.keys()
    kept |= (set(ByteLevel.alphabet()) | set(special)) & vocabulary.keys()
    parts = {"".join(merge): merge for merge in merges}
    waiting = [token for token in kept if token in parts]
    while waiting:
        new = set(parts[waiting.pop()]) - kept
        kept |= new
        waiting += new & parts.keys()
    ids = sorted(vocabulary[token] for token in kept) + [
        tokenizer.convert_tokens_to_ids(token) for token in special if token not in vocabulary
    ]
    names = tokenizer.convert_ids_to_tokens(ids)
    place = {name: i for i, name in enumerate(names)}
    state["model"]["vocab"] = {name: place[name] for name in names if name in vocabulary}
    state["model"]["merges"] = [merge for merge in merges if {*merge, "".join(merge)} <= kept]
    added: list[dict[str, Any]] = [token for token in state["added_tokens"] if token["content"] in special]
    state["added_tokens"] = [token | {"id": place[token["content"]]} for token in added]
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state))), ids


def cut_embeddings(model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Leave the rows of these tokens of a model's embeddings, and of its output matrix."""
    for matrix in {model.get_input_embeddings(), model.get_output_embeddings()}:
        matrix.weight = torch.nn.Parameter(matrix.weight.detach()[list(ids)].clone())
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    embeddings.num_embeddings = head.out_features = len(ids)
    embeddings.padding_idx = None
    model.config.vocab_size = len(ids)
    model.tie_weights()
