"""Prompts as a model reads them: messages, token ids and text, made with what verl's agent loops make them with."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, open_dict
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from recipe.hdpo.algorithm import feedback
from recipe.hdpo.algorithm.default_templates import FEEDBACK
from recipe.hdpo.algorithm.feedback import FeedbackPromptBuilder
from recipe.hdpo.algorithm.message_template import compile_template
from recipe.hdpo.algorithm.privileged_prompt import PrivilegedPromptBuilder
from recipe.hdpo.config import HDPOConfig


def make_prompt_builders(hdpo: HDPOConfig) -> dict[str, PrivilegedPromptBuilder | FeedbackPromptBuilder]:
    """What builds the messages of privileged prompts, by source; none for one that shows nothing."""
    options = hdpo.privileged
    builders: dict[str, PrivilegedPromptBuilder | FeedbackPromptBuilder] = {}
    for source in options.sources if options.shows else ():
        if source == feedback.SOURCE:
            template = compile_template(options.feedback_template, options.placement, FEEDBACK)
            builders[source] = FeedbackPromptBuilder(template, options.placement)
        else:
            builders[source] = PrivilegedPromptBuilder(
                template=compile_template(options.template, options.placement),
                placement=options.placement,
                source=source,
                solution_key=options.solution_key,
                answer_key=options.answer_key,
                join_texts=options.join_texts,
            )
    return builders


def make_token_builder(config: DictConfig, tokenizer: Any, processor: Any, hf_config: Any) -> Any:
    """verl's builder of token ids, as its agent loops make it (``AgentLoopBase.__init__``).

    Args:
        config: the whole composed config.
        processor: verl's processor of a vision-language model; None for a language model.
        hf_config: the model's.
    """
    return token_builder_of(config.data, tokenizer, processor, _model_type(hf_config))


def make_privileged_token_builder(
    config: DictConfig, hdpo: HDPOConfig, tokenizer: Any, processor: Any, hf_config: Any
) -> Any | None:
    """The same for privileged prompts; None where they have the options of the plain ones."""
    if not hdpo.privileged.chat_template_kwargs:
        return None
    return token_builder_of(privileged_data(config.data, hdpo), tokenizer, processor, _model_type(hf_config))


def _model_type(hf_config: Any) -> str | None:
    model_type = getattr(hf_config, "model_type", None)
    return model_type if isinstance(model_type, str) else None


def token_builder_of(data: DictConfig, tokenizer: Any, processor: Any, model_type: str | None) -> Any:
    """The same from verl's data config and the name of the model's kind."""
    return create_continuous_token_builder(
        tokenizer,
        hf_model_type=model_type,
        chat_template_kwargs=data.get("apply_chat_template_kwargs", {}),
        mm_processor_kwargs=data.get("mm_processor_kwargs", {}),
        processor=processor,
    )


def privileged_data(data: DictConfig, hdpo: HDPOConfig) -> DictConfig:
    """verl's data config as it holds for privileged prompts: with ``hdpo.privileged.chat_template_kwargs`` on top of
    ``apply_chat_template_kwargs``. Without any it is the same object."""
    options = hdpo.privileged.chat_template_kwargs
    if not options:
        return data
    own = copy.deepcopy(data)
    with open_dict(own):
        own.apply_chat_template_kwargs = {**(data.get("apply_chat_template_kwargs") or {}), **options}
    return own


@dataclass(frozen=True)
class _WithTools:
    """A builder whose prompts show tools, for :func:`render`."""

    builder: Any
    schemas: list[dict]

    def build_initial_tokens(self, messages: list[dict]) -> list[int]:
        return self.builder.build_initial_tokens(messages, tools=self.schemas)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.builder, name)


def with_tools(builder: Any, schemas: list[dict] | None) -> Any:
    """The builder of prompts that show these tools; the same builder for None."""
    return builder if schemas is None else _WithTools(builder, schemas)


class NotRendered(ValueError):
    """The chat template makes no prompt of some messages; the text is the template's own reason."""


@dataclass(frozen=True)
class Rendered:
    """A prompt as the model reads it, and the same decoded with its special tokens."""

    ids: list[int]
    text: str


def render(builder: Any, messages: Sequence[Mapping[str, str]]) -> Rendered:
    """The prompt that verl's agent loops make of some messages.

    Args:
        builder: see :func:`make_token_builder`.

    Raises:
        NotRendered: the chat template refuses the messages. That includes those from which verl makes a prompt all the
            same: it puts an empty user turn in front, and then cuts that off, with the prompt's beginning (BOS).
    """
    reasons: list[Exception] = []
    with _listening([builder.tokenizer, getattr(builder, "processor", None)], reasons):
        try:
            ids = list(builder.build_initial_tokens([dict(message) for message in messages]))
        except Exception as error:  # whatever a template or a tokenizer raises
            reasons.append(error)
    if reasons:
        raise NotRendered(f"{type(reasons[0]).__name__}: {reasons[0]}") from reasons[0]
    return Rendered(ids, decode(builder.tokenizer, ids))


def decode(tokenizer: Any, ids: list[int]) -> str:
    """Every token as it is, special ones too."""
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def missing_chat_template(builder: Any) -> str | None:
    """What to say where a single user message cannot be made into a prompt; None where it can.

    verl writes the prompts of some models itself (DeepSeek-V4), so a tokenizer without a template may do.
    """
    try:
        render(builder, [{"role": "user", "content": "1+1=?"}])
    except NotRendered as reason:
        name = getattr(builder.tokenizer, "name_or_path", "")
        remedy = "take an instruction-tuned model, or give one by actor_rollout_ref.model.custom_chat_template"
        if getattr(builder.tokenizer, "chat_template", None) is None:
            return f"the tokenizer {name} has no chat template, by which prompts are made: {remedy}"
        return (
            f"the chat template of the tokenizer {name} cannot make a prompt of one user message ({reason}): {remedy}"
        )
    return None


@contextmanager
def _listening(sources: list[Any], reasons: list[Exception]) -> Iterator[None]:
    """Note what ``apply_chat_template`` raises, which verl answers with another try."""

    def noting(apply: Any) -> Any:
        def noted(*args: Any, **kwargs: Any) -> Any:
            try:
                return apply(*args, **kwargs)
            except Exception as error:
                reasons.append(error)
                raise

        return noted

    heard = [source for source in sources if source is not None]
    for source in heard:
        # On the instance, where it hides the class's method for a while.
        vars(source)["apply_chat_template"] = noting(source.apply_chat_template)
    try:
        yield
    finally:
        for source in heard:
            del vars(source)["apply_chat_template"]
