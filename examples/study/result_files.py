"""The result files of a study, read back: of several versions, and with what was wrong with some."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from examples.study.plan import Run
from examples.study.record import Problem, Record
from recipe.hdpo.evaluation.graders import grader_of_digest

# Settings that name a version. A study may go on under another one, and its report says so.
VERSIONS = ("settings_version", "grader")
# What was wrong with the training settings of a version: pages of results that were made with it say so.
FAULTS = {
    1: "**Made with a broken privileged prompt** (settings_version 1). The teacher read a backslash and an n where the "
    "base model had been taught line breaks: `2+8+3=?\\nReference:\\n2+8=10` on one line. Such a teacher babbles: of "
    "592 privileged answers that came out right 382 held a false line of arithmetic, against 11 of 598 with line "
    "breaks. What is said here of arms that show a solution is what a broken privileged prompt does; the base model "
    "and GRPO read none."
}
# Overrides of arms without a privileged prompt.
PLAIN = ("+control=grpo", "+control=matched_grpo")
# Results from before the versions have the digest of examples/cpu_demo.sh instead; this is that of version 1.
_SCRIPT_OF_VERSION_1 = "16352d25aab67dc6528414907ce4f9712e30173441faf527b3b92556d3b52771"


def read_records(folder: Path) -> list[Record]:
    """Every result file of a folder, in order of their names.

    Raises:
        ValueError: a file that is not a whole record, or files that were made with different settings.
    """
    records = [read_record(path) for path in sorted(folder.glob("*.json"))]
    for phase in ("tune", "report"):
        sets = {tuple(p.id for p in r.problems) for r in records if r.run.phase == phase}
        if len(sets) > 1:
            raise ValueError(f"{folder}: {phase} runs were evaluated on {len(sets)} different sets of problems")
    if any(differing(record.settings, records[0].settings) for record in records):
        raise ValueError(f"{folder}: the runs were made with different settings; the study's next start names them")
    return records


def differing(settings: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """The settings that differ, without those that name a version."""
    keys = (settings.keys() | others.keys()) - set(VERSIONS)
    return sorted(key for key in keys if settings.get(key) != others.get(key))


def _with_versions(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a result file; digests of files, in results from before the versions, become the versions."""
    if "script" not in settings:
        return dict(settings)
    kept = {key: value for key, value in settings.items() if key not in ("script", "grader")}
    version_1 = settings["script"] == _SCRIPT_OF_VERSION_1
    kept["settings_version"] = 1 if version_1 else settings["script"]
    return kept | {"grader": grader_of_digest(settings["grader"])}


def read_record(path: Path) -> Record:
    """A result file.

    Raises:
        ValueError: it is not whole.
    """
    try:
        content = json.loads(path.read_text())
        content["run"] = Run(**content["run"])
        content["problems"] = [Problem(*values) for values in content["problems"]]
        content["settings"] = _with_versions(content["settings"])
        return Record(**content)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a whole result file ({error!r}). Remove it; its run is repeated.") from error


def faults(records: Iterable[Record]) -> list[str]:
    """What was wrong with the settings of some arms that read a privileged prompt, one text a fault."""
    privileged = (r for r in records if r.run.trains and not set(PLAIN) & set(r.overrides))
    versions = {record.settings["settings_version"] for record in privileged}
    return [text for version, text in FAULTS.items() if version in versions]
