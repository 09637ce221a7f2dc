"""Signs of copying against labels: what is counted, and that the trajectories that were read are whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.leak_signs import ANY, LABELS, measure, read_trajectories, table


def row(response: str, label: str, run_share: float = 0.1, length_share: float = 1.0) -> dict[str, Any]:
    return {"response": response, "label": label, "run_share": run_share, "length_share": length_share}


MADE = [
    row("2 + 3 = 5\n#### 5", "derived"),
    row("2 + 3 = 5\n#### 5", "copied", run_share=1.0),
    row("2 + 2 = 5\n#### 5", "rationalised"),
    row("as the solution says, 2 + 3 = 5", "rationalised"),
    row("#### 5", "answer_only", length_share=0.2),
    row("it is five", "derived"),
]


def test_precision_is_over_what_is_marked_and_recall_over_what_was_not_derived() -> None:
    found = {m.sign: (m.marked.total(), m.precision, m.recall) for m in measure(MADE)}
    assert found["a step is false"] == (1, 1.0, 0.25)
    assert found["speaks of a reference"] == (1, 1.0, 0.25)
    assert found["one shared run is 0.5 of it or more"] == (1, 1.0, 0.25)
    assert found["shorter than 0.5 of the solution"] == (1, 1.0, 0.25)
    # The answer alone, and what was derived in words.
    assert found["no step that the check can judge"] == (2, 0.5, 0.25)
    assert found[ANY] == (5, 0.8, 1.0)


def test_a_sign_that_marks_nothing_has_no_precision() -> None:
    _, lines = table(MADE[:1])
    assert lines[0] == ["speaks of a reference", "0", "-", "-"]  # and no recall: all was derived
    head, lines = table(MADE[:3])
    assert head[1:4] == ["of 1 derived", "of 1 copied", "of 1 rationalised"]
    assert lines[0][1:] == ["0", "0", "0", "-", "0.00"]
    assert lines[3][1:] == ["0", "0", "1", "1.00", "0.50"]


def test_an_unknown_label_is_an_error_that_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text('{"label": "derived"}\n{"label": "stolen"}\n')
    with pytest.raises(ValueError, match=r"line 2: label 'stolen'"):
        read_trajectories(file)


def test_forty_trajectories_were_read_each_once_and_each_is_right() -> None:
    rows = read_trajectories()
    assert len(rows) >= 40 and {each["label"] for each in rows} <= set(LABELS)
    assert len({(each["problem"], each["source"], each["response"]) for each in rows}) == len(rows)
    assert all(each["answer"] in each["response"] for each in rows)
