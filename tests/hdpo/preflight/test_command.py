"""The whole command with a stand-in for the engine: what is drawn, resumed, refused, counted and shown."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from recipe.hdpo.evaluation import intervals
from recipe.hdpo.evaluation.records import SAMPLES, read_results
from recipe.hdpo.evaluation.scoring import DEFAULT_REWARD
from recipe.hdpo.preflight import __main__ as preflight
from recipe.hdpo.preflight import drawing, verdict
from tests.hdpo.preflight.made import StandIn

REWARD = """
graded = []


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kw):
    if extra_info.get("late") and "worked" not in solution_str and "as the" not in solution_str:
        return {"score": 0.0, "hdpo_unscored": "no time"}
    if extra_info.get("one lost") and "as the" in solution_str:
        graded.append(ground_truth)
        if graded.count(ground_truth) == 2:
            return {"score": 0.0, "hdpo_unscored": "no time"}
    return {"score": float(solution_str.endswith("#### " + ground_truth)), "pred": solution_str}
"""
TEMPLATE = "{{ problem }}\nReference:\n{{ solution }}"
SOURCES = ["solution", "prefix:0.9", "answer"]


def rows() -> list[dict[str, Any]]:
    """Eight problems: 0 to 3 are easy, and 4 to 7 are cliffs of which 7 has no solution."""
    found = []
    for i in range(8):
        kind = "easy" if i < 4 else "hard"
        solution = None if i == 7 else f"worked: <i>{i}</i> it is\n#### {i}"
        found.append(
            {
                "data_source": "made",
                "prompt": [{"role": "user", "content": f"{kind} number {i}?"}],
                "reward_model": {"style": "rule", "ground_truth": str(i)},
                "extra_info": {"index": i, "difficulty": kind, "solution": solution, "late": False},
            }
        )
    return found


class Command:
    """The command on made data, into ``out``."""

    def __init__(self, folder: Path):
        self.folder, self.out = folder, folder / "out"
        model = folder / "model"
        model.mkdir()
        (model / "config.json").write_text("{}")
        save_file({"weights": np.zeros(1, np.float32)}, model / "model.safetensors")
        (folder / "reward.py").write_text(REWARD)

    def __call__(self, data: list[dict[str, Any]] | None = None, **changes: Any) -> int:
        pd.DataFrame(rows() if data is None else data).to_parquet(self.folder / "train.parquet")
        options = {
            **{"model": self.folder / "model", "data": self.folder / "train.parquet", "out": self.out},
            **{"reward": f"{self.folder}/reward.py", "n": 4, "privileged-n": 2, "max-tokens": 60, "batch-size": 7},
            **{"template": TEMPLATE, "sources": SOURCES},
        } | {name.replace("_", "-"): value for name, value in changes.items()}
        words: list[str] = []
        for name, value in options.items():
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
        return preflight.main(words)

    def figures(self) -> dict[str, Any]:
        return json.loads((self.out / "preflight.json").read_text())

    def left_out(self, what: str) -> dict[str, Any]:
        """The one entry that begins so."""
        [entry] = [entry for entry in self.figures()["left_out"] if entry["what"].startswith(what)]
        return entry


@pytest.fixture(scope="module")
def engine() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "Engine", StandIn)
        # How fine intervals are is no matter of these tests.
        patch.setattr(intervals, "RESAMPLES", 1000)
        yield


@pytest.fixture
def run(engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    for name, value in (("loads", 0), ("asked", 0), ("longest", 0), ("stop_after", None)):
        monkeypatch.setattr(StandIn, name, value)
    return Command(tmp_path)


@pytest.fixture(scope="module")
def done(engine: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Command, str, int]:
    """A run that nothing changes, what it printed, and the longest context that it asked for."""
    command, printed = Command(tmp_path_factory.mktemp("done")), io.StringIO()
    StandIn.longest = 0
    with contextlib.redirect_stdout(printed):
        assert command() == 0
    return command, printed.getvalue(), StandIn.longest


@pytest.fixture
def again(run: Command, done: tuple[Command, str, int]) -> Command:
    """The same command, that goes on with a copy of that run's folder."""
    shutil.copytree(done[0].out, run.out)
    return run


def test_cliffs_solve_rates_leaks_and_the_verdict_of_known_rollouts(done) -> None:
    found = done[0].figures()
    assert [row["share"]["estimate"] for row in found["cliffs"]["by_k"]] == [0.5, 0.5, 0.5]
    assert found["cliffs"]["by_difficulty"] == {
        "easy": {"problems": 4, "cliffs": 0},
        "hard": {"problems": 4, "cliffs": 4},
    }
    solution, answer = found["sources"]["solution"], found["sources"]["answer"]
    assert (solution["problems"], solution["without_text"], solution["on_cliffs"]["problems"]) == (7, 1, 3)
    assert solution["on_cliffs"]["pass"]["1"]["estimate"] == solution["all"]["pass"]["2"]["estimate"] == 1.0
    assert (answer["problems"], answer["on_cliffs"]["problems"]) == (8, 4)
    assert answer["on_cliffs"]["pass"]["1"]["estimate"] == 0.0
    assert found["plain"]["greedy"] == {"problems": 8, "solved": 4}
    leaks = solution["leaks"]
    assert [leaks[group]["speaks"]["estimate"] for group in ("privileged", "on_cliffs", "plain")] == [1.0, 1.0, 0.0]
    assert found["verdict"]["headline"] == "Too few cliffs to tell (4): sample more problems (--limit)."
    assert "1 problems without a text to show (solution): skipped" in done[1] and "(index 7)" in done[1]
    assert "preflight.html" in done[1]
    assert found["verdict"]["flags"] == [] and "+use=hdpo" not in done[1]


def test_privileged_prompts_are_sampled_and_recorded_under_the_plain_problems_ids(done) -> None:
    plain, shown = (read_results(done[0].out / name) for name in ("plain", "prefix_0.9"))
    plains = {s.problem_id: s.prompt[0]["content"] for s in plain.samples}
    for s in shown.samples:
        number = plains[s.problem_id].partition("number ")[2][0]
        assert s.prompt[0]["content"] == f"{plains[s.problem_id]}\nReference:\nworked: <i>{number}</i> it is"
    assert len(plain.samples) == 8 * 5 and len(shown.samples) == 7 * 3
    assert shown.meta.settings["seed"] != plain.meta.settings["seed"] == 0
    assert shown.meta.settings["source"] == "prefix:0.9" and "source" not in plain.meta.settings
    longest = "[user]hard number 4?\nReference:\nworked: <i>4</i> it is\n#### 4[assistant]"
    assert done[2] == len(longest) + 60


def test_what_is_there_is_not_drawn_again_and_another_source_is(again) -> None:
    assert again(sources=["prefix:0.2", *SOURCES]) == 0
    assert StandIn.asked == 7 * 3
    assert again.figures()["sources"]["prefix:0.2"]["problems"] == 7


def test_a_stopped_run_goes_on_where_it_was(run, monkeypatch, capsys) -> None:
    monkeypatch.setattr(StandIn, "stop_after", 45)
    assert run() == 130
    assert "the same command draws the rest" in capsys.readouterr().err
    stopped, asked = (run.out / "solution" / SAMPLES).read_bytes(), StandIn.asked
    monkeypatch.setattr(StandIn, "stop_after", None)
    assert run() == 0
    assert (run.out / "solution" / SAMPLES).read_bytes().startswith(stopped)
    assert StandIn.asked == 8 * 5 + 7 * 3 * 2 + 8 * 3 and 45 <= asked < StandIn.asked


@pytest.mark.parametrize(
    ("change", "folder", "said"),
    [
        ({"n": 3}, "plain", "n: 4 there, 3 now"),
        ({"privileged_n": 1}, "solution", "n: 2 there, 1 now"),
        ({"template": "{{ problem }} {{ solution }}"}, "solution", "prompts_sha256"),
        ({"temperature": 0.5}, "plain", "temperature"),
        ({"limit": 3}, "plain", "limit"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(done, capsys, change, folder, said) -> None:
    before = (done[0].out / folder / SAMPLES).read_bytes()
    assert done[0](**change) == 2
    error = capsys.readouterr().err
    assert f"out/{folder} holds results of other settings" in error and said in error
    assert (done[0].out / folder / SAMPLES).read_bytes() == before


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.links += [value for key, value in attrs if key in ("src", "href", "xlink:href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.handle_starttag(tag, attrs)
        if tag != "meta":
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_alone_and_escapes_what_data_and_model_say(done) -> None:
    page = (done[0].out / "preflight.html").read_text()
    parser = _Page()
    parser.feed(page)
    assert parser.open == [] and all(link.startswith("#") for link in parser.links)
    assert not re.search(r"<script|@import|url\((?!#)", page)
    assert '<meta name="viewport"' in page and "prefers-color-scheme:dark" in page
    assert "<i>4</i>" not in page and "<b>guess</b>" not in page
    assert '<mark class="shown">worked: &lt;i&gt;4&lt;/i&gt; it is\n#### 4</mark>' in page
    assert "I &lt;b&gt;guess&lt;/b&gt; #### 99" in page
    assert "Too few cliffs to tell (4)" in page
    svgs = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(svgs) == 3 and all("<text" in svg and "currentColor" in svg for svg in svgs)
    assert "K, rollouts per prompt" in svgs[0] and "hard" in svgs[1]


@pytest.mark.parametrize(
    ("kinds", "headline", "share"), [("0123", "Too few cliffs to tell (none)", 0.0), ("456", "Too few", 1.0)]
)
def test_data_without_any_cliff_and_of_nothing_but_cliffs(run, kinds, headline, share) -> None:
    assert run([row for row in rows() if str(row["extra_info"]["index"]) in kinds], sources=["solution"]) == 0
    found = run.figures()
    assert headline in found["verdict"]["headline"]
    assert found["cliffs"]["by_k"][-1]["share"]["estimate"] == share
    page = (run.out / "preflight.html").read_text()
    assert ("Cliffs to read" in page) == bool(share) and "Settings that follow" not in page


def test_a_source_without_any_text_is_counted_and_the_others_are_measured(run) -> None:
    data = rows()
    for row in data:
        row["extra_info"]["solution"] = None
    assert run(data) == 0
    found = run.figures()
    assert found["sources"]["solution"] == {"problems": 0, "without_text": 8, "too_long": 0, "longest_prompt": None}
    assert not (run.out / "solution").exists() and found["sources"]["answer"]["problems"] == 8
    entry = run.left_out("problems without a text to show (solution)")
    assert (entry["count"], entry["of"]) == (8, 8) and "extra_info.solution, where nothing stands" in entry["named"][0]


def test_what_does_not_fit_or_is_not_graded_is_left_out_counted_and_named(run) -> None:
    data = rows()
    data[0]["prompt"][0]["content"] += "x" * 150
    data[4]["extra_info"]["solution"] += "y" * 100
    data[5]["extra_info"]["late"] = True
    assert run(data, sources=["solution"]) == 0
    found = run.figures()
    assert found["problems"] == 7 and found["sources"]["solution"]["too_long"] == 1
    assert "(index 0): 181 tokens" in run.left_out("plain prompts that are too long: its problem")["named"][0]
    assert "(index 4)" in run.left_out("privileged prompts (solution) that are too long: as a cliff")["named"][0]
    # Nothing is cut: the context is the longest of what fits.
    assert StandIn.longest <= StandIn.positions
    # A group with a lost rollout is no cliff.
    assert found["cliffs"]["by_k"][-1]["problems"] == 6 and len(found["cliffs"]["ids"]) == 3
    entry = run.left_out("plain rollouts that could not be graded")
    assert (entry["count"], entry["of"]) == (4, 28) and "(index 5), sample 0: no time" in entry["named"][0]


def test_a_lost_rollout_of_every_cliff_leaves_no_share_of_whole_groups_and_the_page_says_so(run) -> None:
    data = rows()
    for row in data:
        row["extra_info"]["one lost"] = True
    assert run(data, sources=["solution"]) == 0
    rates = run.figures()["sources"]["solution"]["on_cliffs"]
    assert list(rates["pass"]) == ["1"] and rates["rollouts"] == 3
    assert "<td>?</td>" in (run.out / "preflight.html").read_text()


def test_a_right_privileged_rollout_that_was_cut_does_not_count_as_training_drops_it(run, monkeypatch) -> None:
    whole = StandIn.respond

    def cut(self: Any, requests: Any, prompt_ids: Any, sampling: Any) -> list[Any]:
        return [replace(response, truncated=True) for response in whole(self, requests, prompt_ids, sampling)]

    monkeypatch.setattr(StandIn, "respond", cut)
    assert run(sources=["solution"]) == 0
    found = run.figures()
    assert found["sources"]["solution"]["on_cliffs"]["pass"]["1"]["estimate"] == 0.0
    assert found["sources"]["solution"]["leaks"]["on_cliffs"]["rollouts"] == 0
    # Plain rollouts that were cut are right all the same: no cliff comes of them.
    assert found["plain"]["all"]["pass"]["1"]["estimate"] == 0.5 and len(found["cliffs"]["ids"]) == 4
    cut_ones = "14 of 14 right privileged rollouts were cut: training drops such, and above they do not count."
    assert cut_ones in found["verdict"]["sentences"]


def test_if_no_prompt_fits_that_is_an_error(run, capsys) -> None:
    assert run(max_prompt_length=10) == 2
    assert "no prompt fits: the shortest has 31 tokens, and there is room for 10" in capsys.readouterr().err


def test_ground_truths_that_the_recipes_grader_cannot_use_are_named(run) -> None:
    data = rows()[4:]
    data[2]["reward_model"]["ground_truth"] = "  "
    assert run(data, reward=DEFAULT_REWARD, sources=["solution"]) == 0
    entry = run.left_out("ground truths")
    assert (entry["count"], entry["of"]) == (1, 4) and "(index 6): a blank text" in entry["named"][0]


def test_users_phrases_are_signs_too(again, done) -> None:
    phrases = again.folder / "phrases.txt"
    phrases.write_text("# It is a comment that begins so.\n[#]### [0-9]\n")
    assert again(phrases=phrases) == 0
    speaks = [each.figures()["sources"]["solution"]["leaks"]["plain"]["speaks"] for each in (done[0], again)]
    assert [each["estimate"] for each in speaks] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n": 1}, "--n 1: a group of rollouts needs 2"),
        ({"privileged_n": 0}, "--privileged-n 0"),
        ({"temperature": 0}, "--temperature 0.0"),
        ({"sources": ["hint"]}, "must be one of solution, answer, problem, feedback, prefix:SHARE"),
        ({"sources": ["prefix:2"]}, "strictly between 0 and 1"),
        ({"sources": ["problem"]}, "--sources problem shows nothing"),
        ({"sources": ["answer", "answer"]}, "each of them once"),
        ({"template": "no"}, "nothing would be privileged"),
        ({"train_batch_size": 0}, "--train-batch-size 0"),
        ({"max_prompt_length": 0}, "--max-prompt-length 0"),
        ({"phrases": "/nowhere.txt"}, "the file of phrases cannot be read"),
        ({"limit": 0}, "--limit 0"),
    ],
)
def test_bad_arguments_are_one_line_and_make_no_folder(run, capsys, change, said) -> None:
    assert run(**change) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1
    assert not run.out.exists()


def test_options_of_privileged_prompts_are_theirs_and_advised_and_must_leave_their_end_alone(
    run, monkeypatch, capsys
) -> None:
    asked: list[Any] = []
    plain = StandIn.token_ids

    def token_ids(self: Any, problems: Any, template_kwargs: Any = None) -> dict[str, list[int]]:
        asked.append(template_kwargs)
        return plain(self, problems, template_kwargs)

    monkeypatch.setattr(StandIn, "token_ids", token_ids)
    monkeypatch.setattr(StandIn, "prompt_end", lambda self, options: f"[{options.get('think')}]", raising=False)
    monkeypatch.setattr(verdict, "TOO_FEW_TO_TELL", 4)
    monkeypatch.setattr(verdict, "MOSTLY", 1.0)
    options = {"chat_template_kwargs": '{"tools": 1}', "privileged_chat_template_kwargs": '{"effort": "a b"}'}
    assert run(sources=["solution"], **options) == 0
    assert asked == [{"tools": 1}, {"tools": 1, "effort": "a b"}]
    flags = [flag for flag, _ in run.figures()["verdict"]["flags"]]
    assert flags[-2:] == [
        "+data.apply_chat_template_kwargs.tools=1",
        '+hdpo.privileged.chat_template_kwargs.effort="a b"',
    ]
    settings = {name: read_results(run.out / name).meta.settings for name in ("plain", "solution")}
    assert settings["solution"]["privileged_chat_template_kwargs"] == {"effort": "a b"}
    assert "privileged_chat_template_kwargs" not in settings["plain"]
    assert run(privileged_chat_template_kwargs='{"think": false}') == 2
    assert "ends in '[False]', and the plain prompt in '[None]'" in capsys.readouterr().err


def test_the_end_of_a_prompt_is_what_stands_behind_the_users_message() -> None:
    from examples.demo.sums_model import CHATML, make_tokenizer
    from recipe.hdpo.evaluation.generate import Engine

    engine = Engine.__new__(Engine)
    engine.tokenizer = make_tokenizer()
    engine.tokenizer.chat_template = CHATML + "{% if think %}<think>{% endif %}"
    assert engine.prompt_end({}) == "<|im_end|>\n<|im_start|>assistant\n"
    assert engine.prompt_end({"think": True}) == "<|im_end|>\n<|im_start|>assistant\n<think>"
