"""HDPO's real actor worker on one or more gloo ranks, without Ray: for exact comparisons in seconds.

Everything is verl's own (TrainingWorker, FSDP2 engine, micro-batches) except TransferQueue, which needs Ray: the rows
that a rank asks for are handed to it by their keys.
"""

from __future__ import annotations

import itertools
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed.nn
import torch.multiprocessing as mp

from tests.hdpo.training import offload, packed_attention

VOCABULARY, PAD = 19, 0
PRELOADED = ["verl.workers.engine_workers", "recipe.hdpo.training.actor", "recipe.hdpo.training.loss"]


@dataclass
class Row:
    """One sequence: a rollout with an advantage, or a kept trajectory with a privileged prompt."""

    prompt: list[int]
    response: list[int]
    advantage: float = 0.0
    teacher_prompt: list[int] | None = None
    old_log_prob_shift: float = 0.0
    importance: float | None = None
    mask: list[int] | None = None

    @property
    def response_mask(self) -> list[int]:
        return [1] * len(self.response) if self.mask is None else self.mask


@dataclass
class Job:
    """One update of the actor: rollouts by data-parallel rank, and the kept trajectories of all ranks.

    ``stock``: by verl's own worker and loss, with nothing of the recipe's. ``engine`` and ``model``: fields of verl's
    FSDPEngineConfig and HFModelConfig; ``frozen_engine``: fields in which the frozen teacher's engine differs.
    ``importance`` of a rollout: verl's weight of its rollout correction. ``mask`` of a row: of its response's tokens, 1
    for those that the model wrote; None where it wrote all. ``recorded``: which kept rows' tokens are recorded.
    """

    rollouts: list[list[Row]]
    kept: list[Row]
    model_dir: str
    mini_batch_size: int = 0
    packed: bool = True
    dynamic: bool = True
    micro_batch_size: int = 1
    max_tokens: int = 64
    frozen_dir: str | None = None
    measure_gradients: bool = False
    factor: float = 1.0
    epochs: int = 1
    stock: bool = False
    temperature: float = 1.0
    sgd: bool = False
    dtype: str = "fp32"
    lr: float = 1e-2
    hdpo: dict[str, Any] = field(default_factory=dict)
    actor: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    frozen_engine: dict[str, Any] = field(default_factory=dict)
    attention: str = ""
    recorded: tuple[int, ...] = ()

    @property
    def sequence_parallel(self) -> int:
        return self.engine.get("ulysses_sequence_parallel_size", 1)

    @property
    def ranks(self) -> int:
        """As verl lays them out: those of one sequence-parallel group, which read the same rows, are neighbours."""
        return len(self.rollouts) * self.sequence_parallel


@dataclass
class Result:
    """What rank 0 saw: gradients of every optimizer step (full tensors), weights after the update, metrics.

    ``head_widths``: how many numbers a token the model's head returned, of all its calls.
    ``records``: what every rank put beside the kept rows, as (rank, number of the row, record).
    Under FSDP1 a gradient is that of a rank's part of many weights, without their names.
    """

    gradients: list[dict[str, torch.Tensor]]
    weights: dict[str, torch.Tensor]
    metrics: dict[str, Any]
    head_widths: set[int] = field(default_factory=set)
    records: list[tuple[int, int, torch.Tensor]] = field(default_factory=list)


def make_model(folder: Path, seed: int = 0, tied: bool = False) -> str:
    """A random Qwen2 of a few thousand weights, fp32, without dropout. ``tied``: one matrix embeds and unembeds."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        initializer_range=0.4,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return str(folder)


def make_chat_model(folder: Path, seed: int = 0) -> None:
    """A random Qwen2 that vLLM can serve, with the demo's byte-level chat tokenizer."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from examples.demo.make_sums_model import make_tokenizer

    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,  # vLLM's CPU attention wants heads of 32 or more
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Ranks:
    """A group of gloo ranks, each a process of its own, that works through jobs. Start-up is paid once."""

    def __init__(self, world_size: int, folder: Path) -> None:
        # All ranks are forks of one process that has imported verl, and has done nothing else.
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.jobs = [context.Queue() for _ in range(world_size)]
        self.results = context.Queue()
        self.processes = [
            context.Process(target=_serve, args=(r, world_size, str(folder), self.jobs[r], self.results), daemon=True)
            for r in range(world_size)
        ]
        for process in self.processes:
            process.start()
        self.broken = False

    def __call__(self, job: Job) -> Result:
        """Run one job on all ranks."""
        assert job.ranks == len(self.processes)
        return self.call(_update, job)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """``function(rank, *args)`` on all ranks; the answer of rank 0. A rank that hangs or raises fails the test."""
        assert not self.broken, "an earlier job broke these ranks"
        self.broken = True
        for queue in self.jobs:
            queue.put((function, args))
        answers: dict[int, Any] = {}
        while len(answers) < len(self.processes):
            rank, answer = self.results.get(timeout=600)
            assert not isinstance(answer, str), f"rank {rank}:\n{answer}"
            answers[rank] = answer
        self.broken = False
        return torch.load(answers[0], weights_only=False)

    def close(self) -> None:
        for process in self.processes:
            process.kill()


class RankGroups:
    """Groups of 1, 2, ... ranks, each started with its first job."""

    def __init__(self, make_folder: Callable[[], Path]) -> None:
        self.make_folder = make_folder
        self.groups: dict[int, Ranks] = {}

    def __call__(self, job: Job) -> Result:
        return self[job.ranks](job)

    def __getitem__(self, size: int) -> Ranks:
        if size not in self.groups:
            self.groups[size] = Ranks(size, self.make_folder())
        return self.groups[size]

    def drop(self, size: int) -> None:
        """End a group, which a failed job has broken; the next job of that size starts another one."""
        if size in self.groups:
            self.groups.pop(size).close()

    def close(self) -> None:
        for size in list(self.groups):
            self.drop(size)


def _serve(rank: int, world_size: int, folder: str, jobs: Any, results: Any) -> None:
    os.environ.update(
        VERL_PLATFORM="cpu",
        RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT="0",
    )
    torch.set_num_threads(1)
    offload.simulate()
    packed_attention.register()
    path = Path(folder) / f"result_{rank}.pt"
    for number in itertools.count():
        try:
            function, args = jobs.get()
            os.environ["DIST_INIT_METHOD"] = f"file://{folder}/store_{number}"
            torch.save(function(rank, *args), path)
            # Each gloo group of a mesh has threads that wake 100 times a second until it is destroyed.
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            results.put((rank, path))
        except BaseException:
            results.put((rank, traceback.format_exc()))
            raise


def hdpo_config(**changes: Any) -> Any:
    """The recipe's config with its defaults, and changes by dotted key."""
    from omegaconf import OmegaConf

    from recipe.hdpo.config import HDPOConfig

    default = Path(__file__).parents[3] / "recipe/hdpo/config/hdpo/default.yaml"
    node = OmegaConf.load(default)
    for key, value in changes.items():
        OmegaConf.update(node, key, value)
    return HDPOConfig.from_mapping(OmegaConf.to_container(node))


def make_actor_config(changes: dict[str, Any], mini_batch_size: int) -> Any:
    """verl's actor config and changes. The default, ``vanilla``, is what the recipe's worker makes of ``hdpo``."""
    from verl.workers.config import FSDPActorConfig, OptimizerConfig, PolicyLossConfig

    return FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=1,
        ppo_mini_batch_size=mini_batch_size,
        ppo_micro_batch_size_per_gpu=1,
        optim=OptimizerConfig(lr=1e-2, total_training_steps=10),
        **{**changes, "policy_loss": PolicyLossConfig(**changes.get("policy_loss", {}))},
    )


@dataclass
class Actor:
    """The recipe's actor worker (verl's own for a stock job) with its loss, as ``init_model`` would leave it."""

    worker: Any
    loss: Any


def start_actor(job: Job) -> Actor:
    """Build the model, its engine and the loss in this process, a rank of a group that the environment names."""
    from verl.workers.utils.losses import ppo_loss

    from recipe.hdpo.training.loss import HDPOLoss

    actor_config = make_actor_config(job.actor, _mini_batch_size(job))
    hdpo = hdpo_config(**job.hdpo)
    worker = _build_worker(job, job.model_dir)
    if job.stock:
        loss: Any = partial(ppo_loss, config=actor_config)
    else:
        teacher = _build_worker(job, job.frozen_dir, forward_only=True) if job.frozen_dir else None
        worker.set_up_hdpo(hdpo, teacher, PAD)
        loss = HDPOLoss(actor_config=actor_config, hdpo=hdpo)
    worker.set_loss_fn(loss)
    return Actor(worker, loss)


def hand_over(
    worker: Any,
    kept: list[Row],
    data: Any,
    measure_gradients: bool = False,
    factor: float = 1.0,
    recorded: tuple[int, ...] = (),
) -> None:
    """What TransferQueue and the trainer would: the kept trajectories by key, and their names in the batch."""
    from verl.utils import tensordict_utils as tu

    from recipe.hdpo import transfer

    by_key = {f"u{i}_8_0": row for i, row in enumerate(kept)}
    names = ("prompt", "teacher_prompt", "response", "response_mask")

    def fetch(keys: list[str], partition: str) -> list[list[torch.Tensor]]:
        return [[torch.tensor(getattr(by_key[k], name)) for k in keys] for name in names]

    worker._fetch_columns = fetch
    if by_key:
        tokens = [len(r.prompt + r.teacher_prompt + 2 * r.response) for r in kept]
        names_of = tuple(list(by_key)[i] for i in recorded)
        rows = transfer.KeptRows(list(by_key), tokens, measure_gradients, factor, recorded=names_of)
        tu.assign_non_tensor_data(data, transfer.KEPT, rows)


def rollout_batch(job: Job, rank: int) -> Any:
    """The rollout rows of a rank, as ``update_actor`` hands them on."""
    from verl.utils import tensordict_utils as tu

    data = _rollout_fields(job.rollouts[rank // job.sequence_parallel], needs_ref=job.actor.get("use_kl_loss", False))
    tu.assign_non_tensor(
        data,
        calculate_entropy=job.actor.get("entropy_coeff", 0.0) != 0.0,
        distillation_use_topk=False,
        distillation_only=False,
        global_batch_size=_mini_batch_size(job),
        mini_batch_size=_mini_batch_size(job),
        epochs=job.epochs,
        temperature=job.temperature,
    )
    return data


def _mini_batch_size(job: Job) -> int:
    return job.mini_batch_size or sum(map(len, job.rollouts))


def _attention(job: Job) -> str:
    """What verl cuts into slices is flash attention alone."""
    return packed_attention.NAME if job.sequence_parallel > 1 else "sdpa"


def _build_worker(job: Job, folder: str, forward_only: bool = False) -> Any:
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig, TrainingWorkerConfig
    from verl.workers.engine_workers import TrainingWorker

    from recipe.hdpo.training.actor import HDPOActor

    model_config = HFModelConfig(
        path=folder,
        load_tokenizer=False,
        use_remove_padding=job.packed,
        override_config={"attn_implementation": job.attention or _attention(job)},
        **job.model,
    )
    precision = {"param_dtype": job.dtype, "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    settings = dict(
        strategy="fsdp2",
        dtype={"fp32": "float32", "bf16": "bfloat16"}[job.dtype],
        mixed_precision=precision,
        use_torch_compile=False,
        forward_only=forward_only,
        use_dynamic_bsz=job.dynamic,
        max_token_len_per_gpu=job.max_tokens,
        infer_max_token_len_per_gpu=job.max_tokens,
        micro_batch_size_per_gpu=job.micro_batch_size,
        infer_micro_batch_size_per_gpu=job.micro_batch_size,
    )
    engine = FSDPEngineConfig(**{**settings, **job.engine, **(job.frozen_engine if forward_only else {})})
    optimizer = {"optimizer": "SGD", "override_optimizer_config": None} if job.sgd else {}
    worker = (TrainingWorker if job.stock else HDPOActor)(
        TrainingWorkerConfig(
            model_type="language_model",
            model_config=model_config,
            engine_config=engine,
            optimizer_config=FSDPOptimizerConfig(
                lr=job.lr, weight_decay=0.0, clip_grad=1e9, total_training_steps=10, **optimizer
            ),
            checkpoint_config=CheckpointConfig(),
        )
    )
    worker.reset()
    if worker.engine.is_param_offload_enabled:
        offload.put_away(worker.engine)
    return worker


def _update(rank: int, job: Job) -> Result:
    from verl.utils import tensordict_utils as tu

    actor = start_actor(job).worker
    gradients: list[dict[str, torch.Tensor]] = []
    _capture_gradients(actor.engine, gradients)
    widths: set[int] = set()
    head = actor.engine.module.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: widths.add(output.shape[-1]))
    data = rollout_batch(job, rank)
    hand_over(actor, job.kept, data, job.measure_gradients, job.factor, job.recorded)
    records: list[tuple[int, int, torch.Tensor]] = []
    actor._put_records = lambda keys, rows, partition: records.extend(
        (rank, int(key[1:].split("_")[0]), row) for key, row in zip(keys, rows, strict=True)
    )
    output = actor.train_mini_batch(data)
    with actor.engine.eval_mode():
        weights = _weights(actor.engine.module)
    # Of a sequence-parallel group the first rank alone reports.
    metrics = {} if output is None else dict(tu.get(output, "metrics"))
    return Result(gradients, weights, metrics, widths, _of_all_ranks(records))


def _of_all_ranks(records: list[Any]) -> list[Any]:
    gathered: list[list[Any]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(gathered, records)
    return [record for of_rank in gathered for record in of_rank]


def _weights(module: Any) -> dict[str, torch.Tensor]:
    """All weights by name, whole."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    if not isinstance(module, FullyShardedDataParallel):
        return {n: full_tensor(p.detach()).clone() for n, p in module.named_parameters()}
    found = {}
    for name, part in module.named_modules():
        if isinstance(part, FullyShardedDataParallel) and part._handle is not None:
            found |= {f"{name}.{n}": w for n, w in _unflattened(part._handle).items()}
    return {n.replace("_fsdp_wrapped_module", "").replace("..", ".").strip("."): w for n, w in found.items()}


def _unflattened(handle: Any) -> dict[str, torch.Tensor]:
    """The weights of one flat parameter of FSDP1, gathered from its ranks."""
    flat, whole = handle.flat_param, handle.flat_param.data
    if handle.uses_sharded_strategy:
        whole = torch.cat(torch.distributed.nn.functional.all_gather(flat._local_shard, group=handle.process_group))
    parts = whole[: sum(flat._numels)].split(list(flat._numels))
    return {n: part.view(shape).clone() for n, part, shape in zip(flat._fqns, parts, flat._shapes, strict=True)}


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _capture_gradients(engine: Any, gradients: list[dict[str, torch.Tensor]]) -> None:
    step = engine.optimizer_step

    def capture() -> Any:
        named = engine.module.named_parameters()
        gradients.append({n: full_tensor(p.grad).clone() for n, p in named if p.grad is not None})
        return step()

    engine.optimizer_step = capture


def _rollout_fields(rollouts: list[Row], needs_ref: bool) -> Any:
    from tensordict import TensorDict

    from recipe.hdpo.training.mini_batch import nested

    def per_token(values: list[float]) -> torch.Tensor:
        return nested([torch.full((len(r.response),), v) for r, v in zip(rollouts, values, strict=True)])

    fields = {
        "prompts": nested([torch.tensor(r.prompt) for r in rollouts]),
        "responses": nested([torch.tensor(r.response) for r in rollouts]),
        "input_ids": nested([torch.tensor(r.prompt + r.response) for r in rollouts]),
        "position_ids": nested([torch.arange(len(r.prompt + r.response)) for r in rollouts]),
        "response_mask": nested([torch.tensor(r.response_mask) for r in rollouts]),
        "loss_mask": nested([torch.tensor(r.response_mask) for r in rollouts]),
        "advantages": per_token([r.advantage for r in rollouts]),
        "old_log_probs": per_token([-2.0 + r.old_log_prob_shift for r in rollouts]),
    }
    if any(r.importance is not None for r in rollouts):
        fields["rollout_is_weights"] = per_token([r.importance for r in rollouts])
    if needs_ref:
        fields["ref_log_prob"] = per_token([-2.5] * len(rollouts))
    return TensorDict(fields, batch_size=[len(rollouts)])
