"""Run cases that hold every combination of a few settings, and print how far each update is from its definition."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.hdpo.training.fsdp_ranks import RankGroups
from tests.hdpo.training.matrix.cases import every, in_ci
from tests.hdpo.training.matrix.compare import compare, is_exact
from tests.hdpo.training.matrix.definition import Files


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strength", type=int, default=2, help="so many choices at a time occur in every combination")
    parser.add_argument("--ci", action="store_true", help="the cases of the test suite")
    parser.add_argument("--only", help="cases whose text holds this")
    options = parser.parse_args(arguments)
    cases = [c for c in (in_ci() if options.ci else every(options.strength)) if (options.only or "") in str(c)]
    # As for the tests, before the ranks import verl.
    os.environ.update(VERL_PLATFORM="cpu", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    failed, largest = 0, {True: 0.0, False: 0.0}
    with tempfile.TemporaryDirectory() as folder:
        files, run = Files(Path(folder)), RankGroups(lambda: Path(tempfile.mkdtemp(dir=folder)))
        for number, case in enumerate(cases, 1):
            try:
                errors = compare(case, run, files)
                fine, text = is_exact(case, errors, files), str(errors)
                largest[case.rounds_as_defined] = max(largest[case.rounds_as_defined], errors.change)
            except Exception as error:
                fine, text = False, f"{type(error).__name__}: {error}"
                run.drop(case.ranks)
            failed += not fine
            _say(f"{number}/{len(cases)} {'exact' if fine else 'FAILED'}: {case}: {text}")
        run.close()
    shares = f"{largest[True]:.1e}, of one that is rounded elsewhere {largest[False]:.1e}"
    _say(f"{len(cases)} cases, {failed} failed; largest error of an update, as a share of it: {shares}")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
