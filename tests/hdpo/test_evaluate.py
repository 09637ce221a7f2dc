"""The evaluate command with a stand-in engine (the real one: evaluation/test_generate.py)."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from recipe.hdpo import evaluate
from recipe.hdpo.evaluation.generate import Response, sample_seed
from recipe.hdpo.evaluation.records import GREEDY, SAMPLES, read_results
from recipe.hdpo.evaluation.scoring import DEFAULT_REWARD

REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kw):
    return {"score": float(solution_str == ground_truth), "pred": solution_str}
"""


class StandIn:
    """Answers by the sample's seed, and counts what it is asked."""

    device, dtype, versions = "cpu", "float32", {"vllm": "0"}
    loads, asked, stop_after, template_kwargs = 0, 0, None, None
    prompt_text = "What is it?<|assistant|>"

    def __init__(self, *_):
        self.tokenizer = SimpleNamespace(decode=lambda ids, **_: self.prompt_text)

    def encode(self, problems, max_tokens, template_kwargs):
        StandIn.template_kwargs = template_kwargs
        return {p.id: [1, 2] for p in problems}

    def tokens(self, text):
        return [ord(char) for char in text]

    def load(self):
        StandIn.loads += 1

    def close(self):
        pass

    def respond(self, requests, prompt_ids, sampling):
        if StandIn.stop_after is not None and StandIn.asked >= StandIn.stop_after:
            raise KeyboardInterrupt
        StandIn.asked += len(requests)
        return [
            Response(str(2 if i == GREEDY else sample_seed(sampling.seed, p, i) % 3 + 1), 5, False) for p, i in requests
        ]


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "Engine", StandIn)
    for name, value in (("loads", 0), ("asked", 0), ("stop_after", None)):
        monkeypatch.setattr(StandIn, name, value)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    save_file({"weights": np.zeros(1, np.float32)}, model / "model.safetensors")
    rows = [
        {
            "data_source": "made",
            "prompt": [{"role": "user", "content": f"{i}"}],
            "reward_model": {"style": "rule", "ground_truth": str(i % 3 + 1)},
            "extra_info": {"difficulty": str(i % 2), "solution": f"it is {i % 3 + 1}"},
        }
        for i in range(6)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "test.parquet")
    (tmp_path / "reward.py").write_text(REWARD)
    return {
        "--model": str(model),
        "--data": str(tmp_path / "test.parquet"),
        "--out": str(tmp_path / "out"),
        "--reward": f"{tmp_path}/reward.py:compute_score",
        "--n": "4",
        "--batch-size": "7",
    }


def _run(arguments, **changes):
    merged = arguments | {f"--{name.replace('_', '-')}": str(value) for name, value in changes.items()}
    return evaluate.main([part for pair in merged.items() for part in pair])


def test_a_run_writes_every_sample_with_its_score_and_prints_the_next_command(arguments, tmp_path, capsys):
    assert _run(arguments) == 0
    results = read_results(tmp_path / "out")
    assert len(results.samples) == 6 * (4 + 1)
    for s in results.samples:
        number = GREEDY if s.sample == GREEDY else sample_seed(0, s.problem_id, s.sample)
        assert s.response == str(2 if number == GREEDY else number % 3 + 1)
        assert s.score == float(s.response == str(int(s.prompt[0]["content"]) % 3 + 1))
        assert s.answer == s.response
    printed = capsys.readouterr().out
    assert "pass@4" in printed
    assert "Next: python -m recipe.hdpo.compare" in printed


def test_the_header_says_how_the_samples_were_made(arguments, tmp_path):
    _run(arguments, temperature=0.7, seed=3)
    meta = read_results(tmp_path / "out").meta
    assert {"temperature": 0.7, "seed": 3, "n": 4, "max_tokens": 1024, "vllm": "0"}.items() <= meta.settings.items()
    assert len(meta.settings["data_sha256"][0]) == len(meta.settings["model_sha256"]) == 64
    assert meta.about["command"].startswith("python -m recipe.hdpo.evaluate --model ")


def test_the_summary_file_holds_the_printed_numbers(arguments, tmp_path):
    _run(arguments)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["problems"] == 6
    assert summary["overall"]["greedy"]["estimate"] == pytest.approx(2 / 6)
    assert list(summary["difficulty"]) == ["0", "1"]


def test_signs_of_copying_and_steps_of_correct_samples_are_in_the_summary(arguments, tmp_path, capsys):
    (tmp_path / "phrases.txt").write_text("[123]\n")
    assert _run(arguments, phrases=tmp_path / "phrases.txt", step_check="recipe.hdpo.step_check.arithmetic") == 0
    found = json.loads((tmp_path / "out" / "summary.json").read_text())["leakage"]
    right = [s for s in read_results(tmp_path / "out").samples if s.sample != GREEDY and s.score == 1.0]
    assert (found["rollouts"], found["problems"]) == (len(right), len({s.problem_id for s in right}))
    # A digit of a solution "it is 1": all of the response, and a seventh of the solution.
    assert (found["speaks"]["estimate"], found["copies"]["estimate"], found["run"]) == (1.0, 1.0, 1)
    assert (found["workless"]["estimate"], found["length_share"]) == (1.0, pytest.approx(1 / 7))
    assert (found["without_steps"]["estimate"], found["valid_steps"]) == (1.0, None)
    assert f"Of {len(right)} correct responses" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [({"phrases": "/nowhere.txt"}, "/nowhere.txt"), ({"step_check": "no_such_module.check"}, "no_such_module")],
)
def test_phrases_and_checks_that_cannot_be_read_stop_before_anything_is_drawn(arguments, capsys, change, message):
    assert _run(arguments, **change) == 2
    assert message in capsys.readouterr().err and StandIn.loads == 0


def test_a_second_run_draws_nothing_and_changes_no_sample(arguments, tmp_path, capsys):
    _run(arguments)
    before = (tmp_path / "out" / SAMPLES).read_bytes()
    assert _run(arguments) == 0
    assert StandIn.loads == 1
    assert (tmp_path / "out" / SAMPLES).read_bytes() == before
    assert "All 30 samples are already" in capsys.readouterr().out


def test_an_interrupted_run_goes_on_where_it_stopped_and_ends_with_the_same_samples(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(StandIn, "stop_after", 14)
    assert _run(arguments) == 130
    monkeypatch.setattr(StandIn, "stop_after", None)
    file = tmp_path / "out" / SAMPLES
    assert len(file.read_bytes().splitlines()) == 14
    file.write_bytes(file.read_bytes()[:-9])  # and the last line was only half on disk
    assert _run(arguments) == 0
    assert StandIn.asked == 14 + 30 - 13
    _run(arguments, out=tmp_path / "whole")
    by_key = [{(s.problem_id, s.sample): s for s in read_results(tmp_path / name).samples} for name in ("out", "whole")]
    assert by_key[0] == by_key[1]
    assert (tmp_path / "out" / f"{SAMPLES}.cut-0").exists()


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"n": 2}, {"limit": 3}, {"seed": 1}, {"max_tokens": 9}])
def test_other_settings_in_the_same_folder_are_refused(arguments, tmp_path, capsys, change):
    _run(arguments)
    before = (tmp_path / "out" / SAMPLES).read_bytes()
    assert _run(arguments, **change) == 2
    assert f"other settings ({next(iter(change))}:" in capsys.readouterr().err
    assert (tmp_path / "out" / SAMPLES).read_bytes() == before


@pytest.mark.parametrize("what", ["grader", "data", "model"])
def test_another_reward_data_or_model_under_the_same_path_is_refused(arguments, tmp_path, capsys, what):
    _run(arguments)
    if what == "grader":
        (tmp_path / "reward.py").write_text(REWARD + "\n# changed\n")
    elif what == "data":
        frame = pd.read_parquet(tmp_path / "test.parquet")
        frame.iloc[::-1].to_parquet(tmp_path / "test.parquet")
    else:
        save_file({"weights": np.ones(1, np.float32)}, tmp_path / "model" / "model.safetensors")
    assert _run(arguments) == 2
    assert ("grader: " if what == "grader" else f"{what}_sha256") in capsys.readouterr().err


def test_other_k_give_another_summary_of_the_same_samples(arguments, tmp_path):
    _run(arguments)
    assert _run(arguments, k=3) == 0
    assert StandIn.loads == 1
    overall = json.loads((tmp_path / "out" / "summary.json").read_text())["overall"]
    assert [m for m in overall if m.startswith("pass")] == ["pass@3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "--n 0"),
        ({"n": 2000}, "--n 2000"),
        ({"k": 8}, "--k 8 with --n 4"),
        ({"k": 0}, "--k 0"),
        ({"temperature": 0}, "--temperature 0.0"),
        ({"temperature": -1}, "--temperature -1"),
        ({"max_tokens": 0}, "--max-tokens 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"top_p": 0}, "--top-p 0.0"),
        ({"seed": -1}, "--seed -1: must be 0 or more"),
        ({"limit": 0}, "--limit 0"),
        ({"data": "/nowhere.parquet"}, "cannot be read as parquet"),
        ({"model": "/nowhere"}, "is not a folder"),
        ({"reward": "/nowhere.py"}, "is not a Python file"),
    ],
)
def test_bad_arguments_are_one_line_and_make_no_folder(arguments, tmp_path, capsys, change, message):
    assert _run(arguments, **change) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_failing_reward_function_keeps_what_was_scored_before(arguments, tmp_path, capsys):
    (tmp_path / "reward.py").write_text(
        "calls = []\n"
        "def compute_score(**kw):\n"
        "    calls.append(1)\n"
        "    assert len(calls) <= 10, 'no more'\n"
        "    return 1.0\n"
    )
    assert _run(arguments) == 2
    assert "no more" in capsys.readouterr().err
    assert len((tmp_path / "out" / SAMPLES).read_bytes().splitlines()) == 10  # a batch of 7, and 3 of the second


def test_what_was_scored_in_a_batch_that_failed_is_not_drawn_again(arguments, tmp_path):
    (tmp_path / "reward.py").write_text(
        "import os\n"
        "def compute_score(data_source, solution_str, **kw):\n"
        f"    with open({str(tmp_path / 'calls')!r}, 'a+') as file:\n"
        "        file.write('x')\n"
        "        file.flush()\n"
        "        assert os.path.getsize(file.name) != 10\n"
        "    return 1.0\n"
    )
    assert _run(arguments) == 2
    kept = (tmp_path / "out" / SAMPLES).read_bytes().splitlines()
    assert len(kept) == 9
    assert _run(arguments) == 0
    assert (tmp_path / "out" / SAMPLES).read_bytes().splitlines()[:9] == kept
    assert (tmp_path / "calls").stat().st_size == 6 * 5 + 1


def test_repeated_rows_are_counted_once_and_said(arguments, tmp_path, capsys):
    frame = pd.read_parquet(tmp_path / "test.parquet")
    pd.concat([frame, frame.iloc[:2]]).to_parquet(tmp_path / "test.parquet")
    assert _run(arguments) == 0
    assert "2 row(s) repeat another problem" in capsys.readouterr().out
    assert read_results(tmp_path / "out").meta.problems == 6


def test_options_of_the_template_and_the_reward_are_used_and_recorded(arguments, tmp_path):
    (tmp_path / "reward.py").write_text("def compute_score(solution_str, bonus=0.0, **kw):\n    return bonus\n")
    assert _run(arguments, reward_kwargs='{"bonus": 1.0}', chat_template_kwargs='{"enable_thinking": false}') == 0
    results = read_results(tmp_path / "out")
    assert {s.score for s in results.samples} == {1.0}
    assert StandIn.template_kwargs == {"enable_thinking": False}
    assert results.meta.settings["chat_template_kwargs"] == {"enable_thinking": False}
    assert results.meta.settings["reward_kwargs"] == {"bonus": 1.0}


@pytest.mark.parametrize("options", [{}, {"reward_kwargs": '{"thinking_opened": false}'}])
def test_a_chat_template_that_opens_a_thought_is_named_where_the_recipes_reward_does_not_know(
    arguments, monkeypatch, capsys, options
):
    monkeypatch.setattr(StandIn, "prompt_text", "What is it?<|assistant|><think>\n")
    assert _run(arguments, reward=DEFAULT_REWARD, **options) == 0
    said = capsys.readouterr().out
    assert ("warning: the chat template ends the prompt with an open think tag" in said) == (not options)
    assert ("""--reward-kwargs '{"thinking_opened": true}'""" in said) == (not options)


def test_options_that_are_no_json_object_are_refused(arguments, capsys):
    for value, said in (("strict", "is not JSON"), ("[1]", "is no JSON object")):
        with pytest.raises(SystemExit):
            _run(arguments, reward_kwargs=value)
        assert said in capsys.readouterr().err


def test_samples_of_other_problems_stop_a_second_run_before_anything_is_drawn(arguments, tmp_path, capsys):
    _run(arguments)
    samples = tmp_path / "out" / SAMPLES
    lines = samples.read_text().splitlines()
    samples.write_text("\n".join([json.dumps(json.loads(lines[0]) | {"problem_id": "stranger"}), *lines[2:]]) + "\n")
    before, asked = samples.read_bytes(), StandIn.asked
    assert _run(arguments) == 2
    assert "1 sample(s) that are none of these problems' (stranger" in capsys.readouterr().err
    assert (samples.read_bytes(), StandIn.asked) == (before, asked)
