"""The benchmark of a single card, small and on the CPU: all parts run, and a failure is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import correct, divergences, head, head_updates, host_waits, updates
from benchmarks.gpu.recording import Record


def test_every_part_is_complete_and_names_its_environment(card_figures: dict[str, dict[str, Any]]) -> None:
    for part, content in card_figures.items():
        assert (content["part"], content["status"]) == (part, "complete")
        assert content["environment"]["device"] == "cpu" and content["environment"]["torch"] == torch.__version__
        assert content["figures"] and content["seconds"] > 0


def test_all_cases_are_correct_on_the_cpu_too(card_figures: dict[str, dict[str, Any]]) -> None:
    cases = card_figures["correct"]["figures"]
    assert len(cases) == 6 * 2 * 4 + 2 * 3 * 2 and all(case["holds"] for case in cases.values())


def test_grpo_and_hdpo_without_a_cliff_have_the_same_loss(card_figures: dict[str, dict[str, Any]]) -> None:
    update = card_figures["updates"]["figures"]
    assert update["losses"] == {"finite": True, "grpo_and_lambda_0_equal_bit_for_bit": True}
    # Kept rows change how the mini-batch is cut, and with it the order of the sum.
    assert update["HDPO, 100 % cliffs"]["policy_loss"] == pytest.approx(update["GRPO"]["policy_loss"], rel=1e-6)
    assert update["HDPO, 100 % cliffs"]["jsd"] > 0 and "jsd" not in update["HDPO, no cliff"]


def test_the_fused_head_is_as_exact_as_whole_logits_and_updates_agree(card_figures: dict[str, dict[str, Any]]) -> None:
    cases = card_figures["head_correct"]["figures"]
    assert len(cases) == 1 + 2 * 3 * 2 and all(case["holds"] for case in cases.values())
    timed = card_figures["head"]["figures"]
    assert len(timed) == 8 and all(case["milliseconds"] > 0 for case in timed.values())
    updates = card_figures["head_updates"]["figures"]
    assert updates["losses"] == {"agree": True} and len(updates) == 5
    at = "100 % cliffs, 256 tokens a micro-batch"
    assert updates[f"fused head: {at}"]["jsd"] == pytest.approx(updates[f"logits: {at}"]["jsd"], rel=1e-5)


@pytest.mark.parametrize(("jsd", "agrees"), [(0.5, True), (0.6, False), (float("nan"), False)])
def test_losses_that_differ_are_told_apart(jsd: float, agrees: bool) -> None:
    losses = {"policy_loss": 0.1, "jsd": 0.5, "grad_norm": 2.0}
    assert head_updates.agree(losses, losses | {"jsd": jsd}, 0.02) is agrees
    no_losses = {"seconds": None, "why": "does not fit"}
    assert head_updates.agree(no_losses, losses, 0.02) and not head_updates.agree(losses, no_losses, 0.02)


def test_waits_are_counted_at_lines_of_the_recipe_and_of_verl(card_figures: dict[str, dict[str, Any]]) -> None:
    waits = card_figures["host_waits"]["figures"]
    assert waits["GRPO"]["at_our_lines"] == 0 and waits["GRPO"]["waits"] > 0
    assert all(line.startswith("recipe/hdpo/") for line in waits["HDPO"]["ours"])
    assert any(line.startswith("verl/") for line in waits["GRPO"]["most_of_the_others"])


def test_figures_of_a_part_that_fails_are_kept_and_the_next_part_runs(tmp_path: Path, monkeypatch) -> None:
    """The first part raises and the second never ends; either has written a figure before."""
    started: list[str] = []
    run = subprocess.run

    def start(command: list[str], **options: Any) -> Any:
        _, dash_m, module, *arguments = command
        part = module.removeprefix("benchmarks.gpu.")
        path = tmp_path / f"{part}.json"
        assert (dash_m, arguments) == ("-m", ["--device", "cpu", "--out", str(path)])
        started.append(part)
        Record(path, part, "cpu").add("a", b=1.0)
        ends = "raise RuntimeError('the card fell off')" if part == "correct" else "import time; time.sleep(3600)"
        return run([sys.executable, "-c", ends], **options)

    monkeypatch.setattr(gpu.subprocess, "run", start)
    monkeypatch.setattr(gpu, "limit_of", lambda part, device: 1 if part == "updates" else 600)
    monkeypatch.setattr(
        sys, "argv", ["gpu", "--out", str(tmp_path), "--parts", "correct", "updates", "--device", "cpu"]
    )
    with pytest.raises(SystemExit, match="failed: correct, updates"):
        gpu.main()
    broken, slow = (json.loads((tmp_path / f"{part}.json").read_text()) for part in ("correct", "updates"))
    assert broken["figures"] == slow["figures"] == {"a": {"b": 1.0}}
    assert "exit code 1" in broken["status"] and "RuntimeError: the card fell off" in broken["error"][-1]
    assert "stopped after 1 s" in slow["status"] and started == ["correct", "updates"]


def test_a_wrong_gradient_is_told_from_a_right_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, case = next(correct.cases(80, 10))
    record = Record(tmp_path / "x.json", "correct", "cpu")
    assert correct.check(record, name, case, "fp32", "cpu")

    def slightly_wrong(logits: torch.Tensor, *args: Any, **options: Any) -> Any:
        return divergence(logits * (1 + 1e-3), *args, **options)

    divergence = correct.topk_divergence
    monkeypatch.setattr(correct, "topk_divergence", slightly_wrong)
    assert not correct.check(record, name, case, "fp32", "cpu")


def test_a_variant_that_does_not_fit_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("tried to allocate 40 GiB")

    monkeypatch.setattr(
        divergences, "variants", lambda device: {"ours": lambda: divergences.jsd.ours, "plain": lambda: greedy}
    )
    record = Record(tmp_path / "x.json", "divergences", "cpu")
    divergences.compare(record, 4, 30, 3, "cpu", 1e6, 1)
    found = record.content["figures"]
    assert "OutOfMemoryError: tried to allocate 40 GiB" in found["4 rows: plain"]["why"]
    assert found["4 rows: ours"]["milliseconds"] > 0 and found["4 rows: teacher's top-k"]["share_of_limit"] > 0


@pytest.mark.parametrize(("seconds", "prompts"), [(0.1, 32), (0.4, 8), (100.0, 4)])
def test_prompts_are_halved_until_all_updates_fit_the_time(seconds: float, prompts: int) -> None:
    """90 s for 16 updates; one prompt's update takes ``seconds``."""

    class Bench:
        update: Callable[..., dict[str, float]] = staticmethod(lambda job, kept: {"seconds": seconds})

    job: Any = updates.Job(rollouts=[[]], kept=[], model_dir="")
    assert updates.affordable_prompts(Bench(), job, 32, 16) == prompts  # type: ignore[arg-type]


def test_verls_kernel_gets_the_contiguous_gradient_that_it_asserts(monkeypatch: pytest.MonkeyPatch) -> None:
    from verl.utils.kernel import linear_cross_entropy as module

    seen: list[bool] = []

    def on_the_cpu(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, *_: Any) -> tuple:
        log_probs = (hidden[0] @ weight.t()).float().log_softmax(-1).gather(-1, labels[0, :, None])[:, 0]
        log_probs.register_hook(lambda gradient: seen.append(gradient.is_contiguous()))
        return log_probs, None

    monkeypatch.setattr(module, "linear_cross_entropy", on_the_cpu)
    bench = head.Bench(8, 16, 50, 4, "cpu")
    bench.verls_kernel().backward()
    assert seen == [True] and bench.weight_VH.grad is not None


def test_a_read_is_counted_at_the_line_that_made_it() -> None:
    with host_waits.counted_waits("cpu") as counts:
        torch.ones(2).sum().item()
    assert sum(counts.values()) == 1
