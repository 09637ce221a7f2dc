"""Fill the generated parts of README.md and docs/*.md.

python -m scripts.docs_parts            write them
python -m scripts.docs_parts --check    name the documents whose parts are stale; exit 1 if there are any
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from examples.training import ROOT
from scripts.docs_parts import card, card_head, configuration, measured, study, study_tables
from scripts.docs_parts.marks import Blocks, Values, fill

VALUES: Values = {
    **{f.__name__: f for f in (study.mean, study.gain, study.interval, study.problems, study.rate)},
    **{f.__name__: f for f in (study.curve, study.warned, study.tuned, study.sign)},
    "card": card.card,
    "wrote": study_tables.wrote,
    **{f.__name__: f for f in (card_head.head, card_head.head_update)},
    **{f.__name__: f for f in (measured.demo, measured.own, measured.overhead, measured.jsd_ratio)},
    measured.saturated.__name__: measured.saturated,
}
BLOCKS: Blocks = {
    "study-faults": study_tables.study_faults,
    "study": study_tables.study_table,
    "legs": study_tables.legs_table,
    "digits": study_tables.digits_table,
    "study-short": study_tables.short_table,
    "broken-prompt": study_tables.broken_prompt_table,
    "collapse": study_tables.collapse_table,
    "demo": measured.demo_table,
    "demo-differences": measured.demo_differences,
    "jsd": measured.jsd_table,
    "leak-signs": measured.leak_signs_table,
    "saturation": measured.saturation_table,
    "jsd-head": measured.jsd_head_table,
    "gpu-environment": card.environment_table,
    "gpu-correct": card.correct_table,
    "gpu-divergences": card.divergences_table,
    "gpu-updates": card.updates_table,
    "gpu-waits": card.waits_table,
    "gpu-head-correct": card_head.head_correct_table,
    "gpu-head": card_head.head_table,
    "gpu-head-updates": card_head.head_updates_table,
    "knobs": configuration.knobs_table,
    "knobs-divergence": lambda: configuration.knobs_table("divergence"),
    "knobs-privileged": lambda: configuration.knobs_table("privileged"),
    "knobs-gate": lambda: configuration.knobs_table("privileged.gate"),
    "controls": configuration.controls_table,
    "switches": configuration.switches_table,
}


def documents() -> list[Path]:
    """The documents that may have generated parts. Pages under docs/results are written by `examples.study.report`."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def stale() -> dict[Path, str]:
    """Documents that differ from what their marks give, with the text that they should have.

    Raises:
        ValueError: a mark that names nothing; the message says where.
    """
    found = {}
    for path in documents():
        text = path.read_text(encoding="utf-8")
        try:
            filled = fill(text, VALUES, BLOCKS)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{path.relative_to(ROOT)}: {error}") from error
        if filled != text:
            found[path] = filled
    return found


def main() -> None:
    """Parse the command line; write or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a document is stale")
    args = parser.parse_args()
    try:
        found = stale()
    except ValueError as error:
        sys.exit(f"error: {error}")
    for path, text in found.items():
        print(f"{'stale' if args.check else 'filled'}: {path.relative_to(ROOT)}")
        if not args.check:
            path.write_text(text, encoding="utf-8")
    if args.check and found:
        sys.exit("run `make docs-parts` and commit what it changes")


if __name__ == "__main__":
    main()
