"""Agent loops and a stateful tool of a user's own, as a file of agent loops and a tool config name them."""

from __future__ import annotations

from typing import Any, ClassVar

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.tools.base_tool import BaseTool
from verl.tools.schemas import ToolResponse


class Asking(SingleTurnAgentLoop):
    """Two turns with a question of the environment in between. ``question`` comes from the file of agent loops."""

    made: ClassVar[list[tuple[str, str]]] = []

    def __init__(self, *args: Any, question: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.question = question
        self.made.append((type(self).__name__, question))

    async def run(self, sampling_params: dict[str, Any], raw_prompt: list, uid: str, **kwargs: Any) -> Any:
        assert not any(name.startswith("hdpo") for name in kwargs)
        first = await super().run(sampling_params, raw_prompt=raw_prompt)
        asked = self.tokenizer(self.question)["input_ids"]
        seen = first.prompt_ids + first.response_ids + asked
        second = await self.server_manager.generate(request_id=uid, prompt_ids=seen, sampling_params=sampling_params)
        ids = first.response_ids + asked + second.token_ids
        mask = [1] * len(first.response_ids) + [0] * len(asked) + [1] * len(second.token_ids)
        output = AgentLoopOutput(prompt_ids=first.prompt_ids, response_ids=ids, response_mask=mask, metrics={})
        return self.returned(output)

    def returned(self, output: AgentLoopOutput) -> Any:
        return [output]


class Branching(Asking):
    """Several outputs of one session."""

    def returned(self, output: AgentLoopOutput) -> Any:
        return [output, output]


class Drawing(Asking):
    """Its tool answers with a picture."""

    def returned(self, output: AgentLoopOutput) -> Any:
        output.multi_modal_data = {"images": ["a picture"], "videos": None}
        return output


class Unit(BaseTool):
    """Tells the unit that its row gave it; remembers what it was made with."""

    made: ClassVar[list[dict]] = []

    async def create(self, instance_id: str | None = None, **kwargs: Any) -> tuple[str, ToolResponse]:
        self.made.append(kwargs["create_kwargs"])
        self.unit = kwargs["create_kwargs"]["unit"]
        return "instance", ToolResponse()

    async def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs: Any) -> tuple:
        return ToolResponse(text=self.unit), 0.0, {}


class Reader(BaseTool):
    """Answers with what the conversation begins with, and leaves a note in it."""

    read: ClassVar[list[list[dict]]] = []

    async def create(self, instance_id: str | None = None, **kwargs: Any) -> tuple[str, ToolResponse]:
        return "instance", ToolResponse()

    async def execute(self, instance_id: str, parameters: dict, agent_data: Any = None, **kwargs: Any) -> tuple:
        self.read.append(list(agent_data.messages))
        agent_data.extra_fields["note"] = "noted"
        return ToolResponse(text="S!" if "SOLUTION" in str(agent_data.messages) else "no"), 0.0, {}


def make_asking(*args: Any, **kwargs: Any) -> Asking:
    return Asking(*args, **kwargs)


class PassingOn(SingleTurnAgentLoop):
    """Hands on what it is given, as to an environment; remembers what that is."""

    given: ClassVar[list[dict]] = []

    def __init__(self, *args: Any, question: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> Any:
        self.given.append(kwargs)
        return await super().run(sampling_params, **kwargs)
