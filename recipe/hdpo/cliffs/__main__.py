"""The cliffs of a run, on one page: what failed, what was shown, what was kept, and each token's divergence.

    python -m recipe.hdpo.cliffs RUN [--out FILE]

RUN is a run's ``trainer.rollout_data_dir``, or a folder above it. The page is one HTML file, to be opened in any
browser; it loads nothing. It holds 5 MB at most: of more cliffs it shows some, chosen by chance.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from recipe.hdpo.algorithm.leakage import read_phrases, reference_pattern
from recipe.hdpo.cliffs.files import Run, find_run
from recipe.hdpo.cliffs.page import cliff_page

PAGE = "cliffs.html"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status (2 after an error that the user can mend)."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.hdpo.cliffs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run's trainer.rollout_data_dir, or a folder above it")
    parser.add_argument("--out", type=Path, help=f"the page (default: {PAGE} in the run's folder)")
    parser.add_argument("--phrases", type=Path, help="file of further phrases that speak of a reference, one a line")
    args = parser.parse_args(argv)
    try:
        pattern = reference_pattern(read_phrases(args.phrases) if args.phrases else ())
        folder = find_run(args.run)
        out = args.out or folder / PAGE
        if out.is_dir():
            raise ValueError(f"--out {out} is a folder; name a file in it")
        page, said = cliff_page(Run(folder), pattern)
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f".{out.name}.{os.getpid()}")
        part.write_text(page, encoding="utf-8")
        os.replace(part, out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{said}\nPage: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
