"""Responses from vLLM's offline engine, on a GPU or on the CPU: greedy ones and seeded samples.

Every sample is a request of its own with the seed :func:`sample_seed`, so a sample depends on (seed, problem,
number) and not on its neighbours. The engine runs inside this process, where scheduling is deterministic; a
resumed run batches requests differently, which can move a logit in its last bits.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.hdpo.algorithm.seeds import derived_seed
from recipe.hdpo.evaluation.problems import Problem
from recipe.hdpo.evaluation.records import GREEDY


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn: the n samples of each problem; the greedy one shares only ``max_tokens``."""

    n: int
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    seed: int


@dataclass(frozen=True)
class Response:
    """One response: text without special tokens, length in tokens, whether it ran into ``max_tokens``."""

    text: str
    tokens: int
    truncated: bool


def sample_seed(seed: int, problem_id: str, sample: int) -> int:
    """Seed of one sample: 62 bits of SHA-256 over (seed, problem id, sample number)."""
    return derived_seed(seed, problem_id, sample)


class Engine:
    """A loaded model.

    Attributes:
        tokenizer: the model's.
        device: ``cuda`` or ``cpu``.
        dtype: what the engine computes in.
        versions: of vllm, torch and transformers.
    """

    def __init__(self, model: Path, dtype: str | None, gpu_memory_utilization: float, tensor_parallel_size: int):
        """Prepare; the weights are loaded by :meth:`load`.

        Args:
            model: Hugging Face folder.
            dtype: a vLLM dtype; None takes the model's own on a GPU and float32 on the CPU.
            gpu_memory_utilization: share of the GPU's memory for weights and KV cache.
            tensor_parallel_size: number of GPUs.
        """
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        import torch

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.device == "cpu":
            os.environ.setdefault("VLLM_TARGET_DEVICE", "cpu")
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        import transformers
        import vllm

        self.versions = {m.__name__: str(m.__version__) for m in (vllm, torch, transformers)}
        self.dtype = dtype or ("float32" if self.device == "cpu" else "auto")
        self._model = str(model)
        self._options: dict[str, Any] = {"tensor_parallel_size": tensor_parallel_size, "dtype": self.dtype}
        if self.device == "cuda":
            self._options["gpu_memory_utilization"] = gpu_memory_utilization
        else:
            self._options["enforce_eager"] = True
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(self._model)
        self._limit = getattr(transformers.AutoConfig.from_pretrained(self._model), "max_position_embeddings", None)
        self._llm: Any = None

    def encode(
        self, problems: Sequence[Problem], max_tokens: int, template_kwargs: Mapping[str, Any] | None = None
    ) -> dict[str, list[int]]:
        """Prompt token ids of every problem (:meth:`token_ids`), which fit into the engine's context from now on.

        Raises:
            ValueError: no chat template, or prompts that leave no room for ``max_tokens`` (nothing is ever
                cut off).
        """
        ids = self.token_ids(problems, template_kwargs)
        room = self.room(max_tokens)
        long = [problem for problem, tokens in ids.items() if room is not None and len(tokens) > room]
        if long:
            longest = max(len(tokens) for tokens in ids.values())
            raise ValueError(
                f"{len(long)} of {len(ids)} prompts (the longest has {longest} tokens; first: {long[0]}) and "
                f"--max-tokens {max_tokens} do not fit into the model's {self._limit} positions. Lower "
                "--max-tokens."
            )
        self.make_room(ids, max_tokens)
        return ids

    def token_ids(
        self, problems: Sequence[Problem], template_kwargs: Mapping[str, Any] | None = None
    ) -> dict[str, list[int]]:
        """Prompt token ids of every problem, by the model's chat template with a generation prompt, and with
        ``template_kwargs`` (verl's ``data.apply_chat_template_kwargs``).

        Raises:
            ValueError: no chat template.
        """
        if self.tokenizer.chat_template is None:
            raise ValueError(f"{self._model}: the tokenizer has no chat template. Use a chat model, or add a template.")
        return {
            p.id: self.tokenizer.apply_chat_template(
                p.prompt, add_generation_prompt=True, return_dict=False, **(template_kwargs or {})
            )
            for p in problems
        }

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, without special ones."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def prompt_end(self, template_kwargs: Mapping[str, Any]) -> str:
        """What the chat template puts behind a user's message, the generation prompt last."""
        mark = "MESSAGE"
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": mark}], add_generation_prompt=True, tokenize=False, **template_kwargs
        )
        return text.rpartition(mark)[2]

    def room(self, max_tokens: int) -> int | None:
        """Tokens of the longest prompt that the model has positions for beside a response; None: no limit is known."""
        return None if self._limit is None else self._limit - max_tokens

    def make_room(self, prompt_ids: Mapping[str, list[int]], max_tokens: int) -> None:
        """Let the context hold these prompts with a response; called several times it holds the longest of all."""
        longest = max(map(len, prompt_ids.values())) + max_tokens
        longest = max(longest, self._options.get("max_model_len", 0))
        self._options["max_model_len"] = longest
        if self.device == "cpu":
            # A prompt cut into chunks rewinds the request's random generator, which torch's CPU generator cannot.
            self._options["enable_chunked_prefill"] = False
            self._options["max_num_batched_tokens"] = max(longest, 4096)

    def load(self) -> None:
        """Start the engine, once; call :meth:`encode` or :meth:`make_room` first, which fix the context length.

        Raises:
            RuntimeError: vLLM refused the model or the memory.
        """
        if self._llm is not None:
            return
        from vllm import LLM

        try:
            self._llm = LLM(model=self._model, **self._options)
        except ValueError as error:  # not ours: the traceback is wanted
            raise RuntimeError(f"vLLM could not load {self._model}: {error}") from error

    def close(self) -> None:
        """Stop the engine and free its memory."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None
            gc.collect()

    def respond(
        self, requests: Sequence[tuple[str, int]], prompt_ids: dict[str, list[int]], sampling: Sampling
    ) -> list[Response]:
        """Responses to (problem id, sample number) requests, in their order."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        params = [self._params(SamplingParams, problem, sample, sampling) for problem, sample in requests]
        prompts = [TokensPrompt(prompt_token_ids=prompt_ids[problem]) for problem, _ in requests]
        outputs = [out.outputs[0] for out in self._llm.generate(prompts, params, use_tqdm=False)]
        # Decoded as the trainer does it; vLLM's own text leaves out a last character that is not complete.
        texts = [self.tokenizer.decode(list(o.token_ids), skip_special_tokens=True) for o in outputs]
        return [
            Response(text, len(o.token_ids), o.finish_reason == "length")
            for text, o in zip(texts, outputs, strict=True)
        ]

    @staticmethod
    def _params(kind: Any, problem: str, sample: int, sampling: Sampling) -> Any:
        if sample == GREEDY:
            return kind(temperature=0.0, max_tokens=sampling.max_tokens, detokenize=False)
        return kind(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=sampling.max_tokens,
            seed=sample_seed(sampling.seed, problem, sample),
            detokenize=False,
        )
