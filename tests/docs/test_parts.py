"""The generated parts of the documents: marks are filled as they say, and what stands in the documents is not stale."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from examples.study.plan import Run
from scripts.docs_parts import card, card_head, configuration, measured, study, study_tables
from scripts.docs_parts.__main__ import BLOCKS, documents, stale
from scripts.docs_parts.marks import blocks_in, fill

ROOT = Path(__file__).parents[2]
VALUES = {"half": lambda: "0.500", "say": lambda *words: "-".join(words), "interval": lambda: "+0.1 [-0.2, +0.4]"}


def test_no_number_and_no_table_in_the_documents_is_stale() -> None:
    """Mend it by `make docs-parts`."""
    assert [str(path.relative_to(ROOT)) for path in stale()] == []


def test_every_table_stands_in_a_document() -> None:
    assert set().union(*(blocks_in(path.read_text(encoding="utf-8")) for path in documents())) == set(BLOCKS)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("is 0.4<!--= half --> so", "is 0.500<!--= half --> so"),
        ("is ?<!--= half -->.", "is 0.500<!--= half -->."),
        ("(1e-4<!--= half -->)", "(0.500<!--= half -->)"),
        ("-1.0 [-2.0, -0.5]<!--= interval -->", "+0.1 [-0.2, +0.4]<!--= interval -->"),
        ("1 and 2<!--= say a b=c -->, 3", "1 and a-b=c<!--= say a b=c -->, 3"),
        ("<!-- begin: t -->\nold\n<!-- end -->\nrest", "<!-- begin: t -->\n\nnew\n\n<!-- end -->\nrest"),
    ],
)
def test_a_mark_replaces_what_it_marks_and_nothing_else(before: str, after: str) -> None:
    assert fill(before, VALUES, {"t": lambda: "new"}) == after


def test_filling_twice_changes_nothing() -> None:
    once = fill("<!-- begin: t -->\n<!-- end -->\n?<!--= interval -->", VALUES, {"t": lambda: "| a |"})
    assert fill(once, VALUES, {"t": lambda: "| a |"}) == once


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1<!--= none -->", "no value `none`"),
        ("<!-- begin: none -->\n<!-- end -->", "no block `none`"),
        ("word<!--= half -->", "no number before it"),
        ("<!-- begin: t -->\nnever ended", "no end"),
    ],
)
def test_a_mark_that_cannot_be_filled_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fill(text, VALUES, {"t": lambda: "new"})


def _counts(pattern: str) -> list[list[list]]:
    """[id, difficulty, n, correct, greedy] of every problem, of every run whose file matches."""
    files = sorted((ROOT / "docs/results/sums/runs").glob(pattern))
    return [json.loads(path.read_text())["problems"] for path in files]


def test_a_mean_is_over_all_runs_and_the_problems_of_a_part() -> None:
    runs, [base] = _counts("report-hdpo_1-*.json"), _counts("report-base.json")
    assert len(runs) == 3 and all(p[2] == 8 for run in runs for p in run)
    assert study.mean("sums", "hdpo_1", "pass@1") == f"{fmean(p[3] / 8 for run in runs for p in run):.3f}"
    assert study.mean("sums", "hdpo_1", "pass@8") == f"{fmean(p[3] > 0 for run in runs for p in run):.3f}"
    cliffs = {p[0] for p in base if p[3] == 0 and not p[4]}
    known = {p[0] for p in base if p[4]}
    assert study.problems("sums", "cliffs") == str(len(cliffs)) and study.problems("sums", "known") == str(len(known))
    on_cliffs = [p[3] > 0 for run in runs for p in run if p[0] in cliffs]
    assert study.mean("sums", "hdpo_1", "pass@8", "cliffs") == f"{fmean(on_cliffs):.3f}"
    greedy = [p[4] for run in runs for p in run if p[0] in known]
    assert study.mean("sums", "hdpo_1", "greedy", "known") == f"{fmean(greedy):.3f}"
    of_four = [p[3] / 8 for run in runs for p in run if p[1] == "4"]
    assert study.mean("sums", "hdpo_1", "pass@1", "terms=4") == f"{fmean(of_four):.3f}"


def test_a_gain_is_the_difference_of_two_means_and_an_interval_is_that_of_the_result_page() -> None:
    means = [fmean(p[3] > 0 for run in _counts(f"report-{arm}-*.json") for p in run) for arm in ("hdpo_1", "grpo")]
    gain = study.gain("sums", "hdpo_1", "grpo", "pass@8")
    assert gain == f"{means[0] - means[1]:+.3f}"
    [row] = [
        line for line in study.page("sums").splitlines() if line.startswith("| hdpo_1 | +") and f"| {gain} [" in line
    ]
    assert row.endswith(f"| {study.interval('sums', 'hdpo_1', 'grpo', 'pass@8')} |")
    seeds = [study.gain("sums", "hdpo_1", "grpo", "pass@8", "all", f"seed={seed}") for seed in (1, 2, 3)]
    assert fmean(map(float, seeds)) == pytest.approx(float(gain), abs=1e-3)


def _rows(made: str) -> dict[tuple[str, ...], dict[str, str]]:
    """A table's cells by row (task, name, seeds) and column."""
    head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in made.splitlines()]
    return {tuple(row[:3]): dict(zip(head[3:], row[3:], strict=True)) for row in body}


def test_the_readmes_table_is_a_part_of_the_table_of_all_studies() -> None:
    whole, short = _rows(study_tables.study_table()), _rows(study_tables.short_table())
    assert len(short) >= 5
    for row, cells in short.items():
        assert cells.items() <= whole[row].items()
    every = {"base", *study_tables.ARMS.values()}
    for plan, task in study_tables.TASKS.items():
        reported = study.made(plan).reported
        assert reported.keys() <= every
        # The base model, and every arm that was run.
        shown = [row for row in whole if row[0] == task and " - " not in row[1]]
        assert len(shown) == (len(reported) + 1 if reported else 0)


def test_a_row_says_of_how_many_seeds_it_is_where_the_plan_has_more(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = {"a": (1, 2, 3), "b": (2,), "c": (1,), "d": (3, 1)}
    reported = {arm: [SimpleNamespace(run=Run("report", arm, 0.1, n)) for n in own] for arm, own in seeds.items()}
    monkeypatch.setattr(study_tables, "made", lambda plan: SimpleNamespace(reported=reported))
    monkeypatch.setattr(study_tables, "runs", lambda plan, arm: reported[arm])
    monkeypatch.setattr(study_tables, "wanted_seeds", lambda plan, arm: 1 if arm == "c" else 3)
    said = {
        **{("a",): "3", ("b",): "1 of 3", ("c",): "1"},
        **{("b", "a"): "1 of 3", ("a", "a"): "3", ("c", "a"): "1", ("d", "a"): "2 of 3", ("b", "d"): "0 of 3"},
    }
    assert {arms: study_tables._seeds("sums", *arms) for arms in said} == said


def test_a_difference_that_a_result_page_does_not_have_is_named_with_the_way_out() -> None:
    for arm, baseline in (("hdpo_1", "next_step_1"), ("hdpo_1", "frozen_1"), ("grpo", "grpo")):
        with pytest.raises(ValueError, match=f"has no row {arm} minus {baseline}: .* in the baselines of"):
            study.interval("sums", arm, baseline, "pass@8")


def test_a_zero_has_no_minus() -> None:
    assert [study.signed(x) for x in (-0.0001, 0.0, -0.001)] == ["+0.000", "+0.000", "-0.001"]


def test_the_demos_differences_have_the_sign_that_their_row_says() -> None:
    first, second = measured.demo_differences().splitlines()[2:]
    assert first.startswith("| HDPO - GRPO | +0.060 [+0.025, +0.101] |")
    assert second.startswith("| GRPO - base model | +0.005 [-0.016, +0.028] |")


def test_figures_of_the_fused_head_are_those_of_its_file() -> None:
    figures = json.loads((ROOT / "docs/results/gpu/h200/head.json").read_text())["figures"]
    names = ("fused", "logits + JSD_k", "GRPO: verl's kernel")
    fused, logits, triton = (figures[f"8192 rows: {name}"] for name in names)
    assert card_head.head("slower", "8192") == f"{fused['milliseconds'] / logits['milliseconds']:.2f}"
    assert card_head.head("gib_of_logits", "8192") == f"{logits['extra_gib']:.1f}"
    assert f"| {fused['milliseconds']:.1f} ms | {fused['extra_gib']:.1f} GiB |" in card_head.head_table()
    assert f"verl's fused head (triton), GRPO alone | {triton['milliseconds']:.1f} ms |" in card_head.head_table()


def test_an_update_that_does_not_fit_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.loads((ROOT / "docs/results/gpu/h200/head_updates.json").read_text())
    figures, at = content["figures"], "100 % cliffs, 32768 tokens a micro-batch"
    ratios = [
        figures[name.replace("logits", "fused head")]["seconds"] / found["seconds"]
        for name, found in figures.items()
        if name.startswith("logits")
    ]
    assert len(ratios) == 4 and card_head.head_update("ratio") in {f"{max(ratios):.2f}", f"{min(ratios):.2f}"}
    figures |= {f"logits: {at}": {"seconds": None, "why": ""}, f"fused head: {at}": {"seconds": 2.0, "peak_gib": 30.0}}
    (tmp_path / "gpu" / card.CARD).mkdir(parents=True)
    (tmp_path / "gpu" / card.CARD / "head_updates.json").write_text(json.dumps(content))
    monkeypatch.setattr(card, "RESULTS", tmp_path)
    last = card_head.head_updates_table().splitlines()[-1]
    assert last == "| 100 % cliffs | 32,768 | does not fit | 2.00 s | does not fit | 30.0 GiB |"


def test_every_knob_of_the_yaml_stands_in_the_tables_with_its_default_and_a_comment() -> None:
    knobs = configuration.fields(configuration.CONFIG / "hdpo/default.yaml")
    assert all(comment for _, _, comment in knobs)
    defaults = OmegaConf.load(configuration.CONFIG / "hdpo/default.yaml")
    read = OmegaConf.create({})
    for key, value, _ in knobs:
        OmegaConf.update(read, key, OmegaConf.create(f"v: {value}").v)
    assert read == defaults
    groups = ("", "divergence", "privileged", "privileged.gate")
    tables = "\n".join(map(configuration.knobs_table, groups))
    assert all(f"| `{key}` | `{value}` | " in tables for key, value, _ in knobs)


def test_a_comment_stays_with_its_field_and_the_files_own_with_none(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "# @package _global_\n# What it is.\na:\n\n  # why b\n  # in two lines\n  b: 1\n\n# why c\nc:\n  d: x\n"
    )
    assert configuration.fields(path) == [("a.b", "1", "why b in two lines"), ("c.d", "x", "why c")]
    assert configuration.about(path) == "What it is."
