"""The divergence benchmark at tiny sizes: every variant runs, figures mean what they say, ours equals plain."""

import json
import math

import pytest
import torch

from benchmarks import jsd
from recipe.hdpo.algorithm.teacher_topk import TeacherTopK

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
TINY = ["--tokens", "12", "--vocab", "60", "--k", "5", "--repeats", "2", "--device", "cpu"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ours_and_plain_agree_in_value_and_gradient(dtype):
    logits, teacher = jsd.make_inputs(12, 60, 5, dtype, "cpu")
    ours, plain = jsd.ours(logits, teacher), jsd.plain(logits, teacher)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
    assert ours.min() > 1e-3
    found, expected = (torch.autograd.grad(loss.sum(), logits)[0].float() for loss in (ours, plain))
    torch.testing.assert_close(found, expected, rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_both_verl_paths_compute_the_forward_kl_of_the_given_teacher():
    logits, teacher = jsd.make_inputs(12, 60, 5, torch.float32, "cpu")
    log_q = logits.log_softmax(-1).gather(-1, teacher.ids).clamp_min(-10)
    expected = (teacher.log_probs.exp() * (teacher.log_probs - log_q)).sum(-1)
    for name in ("verl_full", "verl_chunked"):
        torch.testing.assert_close(jsd.VARIANTS[name]()(logits, teacher), expected, rtol=1e-4, atol=1e-5)


def test_whole_logits_and_the_fused_head_agree_in_value_and_gradient():
    head, (_, teacher) = (
        jsd.make_head(12, 60, 8, torch.float32, "cpu"),
        jsd.make_inputs(12, 60, 5, torch.float32, "cpu"),
    )
    leaves = [head.hidden_NH, head.weight_VH]
    values, gradients = [], []
    for variant in jsd.HEAD_VARIANTS.values():
        values.append(variant(head, teacher))
        gradients.append(torch.autograd.grad(values[-1].sum(), leaves))
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)
    assert values[0].min() > 1e-3
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_fused_heads_memory_does_not_grow_with_the_tokens_and_that_of_logits_does():
    def peak(name: str, tokens: int) -> float:
        head = jsd.make_head(tokens, 40_000, 8, torch.float32, "cpu")
        teacher = TeacherTopK(torch.arange(5).repeat(tokens, 1), torch.full((tokens, 5), -3.0))
        run = jsd.HEAD_VARIANTS[name]
        return jsd.measure(lambda: run(head, teacher).sum().backward(), "cpu")["extra_bytes"]

    growth = {name: peak(name, 1000) - peak(name, 500) for name in jsd.HEAD_VARIANTS}
    logits = 500 * 40_000 * 4
    assert growth["head_logits"] > 1.5 * logits
    assert abs(growth["head_fused"]) < 0.2 * logits


def test_run_writes_figures_of_every_variant(tmp_path, capsys):
    jsd.main([*TINY, "--variants", *jsd.ALL, "--out", str(tmp_path / "jsd.json")])
    stored = json.loads((tmp_path / "jsd.json").read_text())
    assert set(stored["medians"]) == {*jsd.ALL, "student_topk"}
    assert all(len(runs) == 2 for runs in stored["runs"].values())
    assert all(figures["seconds"] > 0 for figures in stored["medians"].values())
    assert stored["setting"]["tokens"] == 12
    printed = capsys.readouterr().out
    assert all(name in printed for name in jsd.ALL)


def test_a_ratio_to_what_was_too_small_to_measure_is_no_number():
    nothing = {"seconds": 1.0, "cpu_seconds": 0.0, "extra_bytes": 0.0}
    found = jsd.ratios({"ours": nothing, "plain": nothing, "verl_full": nothing, "student_topk": {"seconds": 0.5}})
    assert math.isnan(found["memory_vs_plain"]) and math.isnan(found["memory_vs_verl_leaner"])
    assert found["time_vs_plain"] == 1.0 and found["time_vs_verl_faster_less_its_topk"] == 2.0


def test_measure_sees_the_peak_of_memory_that_is_freed_again():
    mib = 2**20
    figures = jsd.measure(lambda: torch.ones(64 * mib, dtype=torch.uint8), "cpu")
    assert figures["extra_bytes"] == pytest.approx(64 * mib, abs=16 * mib)
    assert jsd.measure(lambda: None, "cpu")["extra_bytes"] < 16 * mib


def test_tokens_are_scaled_down_to_the_memory_and_the_output_says_so(capsys):
    args = jsd.parse_args([*TINY, "--memory-fraction", "1e-9", "--variants", "ours"])
    assert jsd.run_benchmark(args)["setting"]["tokens"] < 12
    assert "Scaled down from 12 to" in capsys.readouterr().out


def test_report_tells_a_target_that_holds_from_one_that_is_missed():
    def medians(ours_seconds: float, ours_bytes: float) -> dict[str, jsd.Figures]:
        figures = {name: {"seconds": 2.0, "cpu_seconds": 2.0, "extra_bytes": 100.0} for name in jsd.VARIANTS}
        figures["ours"] = {"seconds": ours_seconds, "cpu_seconds": 1.0, "extra_bytes": ours_bytes}
        figures["verl_full"]["seconds"] = 3.0
        return figures | {"student_topk": {"seconds": 0.5, "cpu_seconds": 0.5, "extra_bytes": 0.0}}

    setting = vars(jsd.parse_args(TINY)) | {"threads": 1}

    def report(ours_seconds: float, ours_bytes: float) -> str:
        found = medians(ours_seconds, ours_bytes)
        return jsd.report({"setting": setting, "medians": found, "ratios": jsd.ratios(found)})

    assert report(1.9, 20.0).count("holds") == 2
    slow = report(2.1, 20.0)
    assert "memory_vs_plain <= 0.25: holds" in slow and "time_vs_verl_faster <= 1.0: MISSED" in slow
    assert "memory_vs_plain <= 0.25: MISSED" in report(1.9, 30.0)
