"""``python -m recipe.hdpo``: which commands there are."""

from __future__ import annotations

from pathlib import Path

from recipe.hdpo import __version__

COMMANDS = """\
HDPO {version} for verl: https://arxiv.org/abs/2603.23871

Ask first whether HDPO fits a model and data: cliffs, a teacher that follows, signs of copying, on one page
  hdpo-preflight --help    or  python -m recipe.hdpo.preflight --help

Train. verl's own command, with HDPO's configuration:
  python -m verl.trainer.main_ppo --config-path pkg://recipe.hdpo.config --config-name hdpo_trainer [key=value ...]
  Or on top of a verl command of your own: +use=hdpo
  One control in place of HDPO: +control=NAME, one of {controls}

Read what a run did: every cliff, its failed and kept responses and each token's divergence, on one page
  hdpo-cliffs --help       or  python -m recipe.hdpo.cliffs --help

Make data: JSONL, CSV, parquet or a data set of the hub, as verl's parquet files
  hdpo-data --help         or  python -m recipe.hdpo.data --help

Evaluate: samples of a model or checkpoint, scored, with pass@k and intervals
  hdpo-evaluate --help     or  python -m recipe.hdpo.evaluate --help

Compare evaluated arms problem by problem, as one HTML report
  hdpo-compare --help      or  python -m recipe.hdpo.compare --help
"""


def main() -> None:
    """Print the list."""
    controls = sorted(path.stem for path in Path(__file__).with_name("config").glob("control/*.yaml"))
    print(COMMANDS.format(version=__version__, controls=", ".join(controls)), end="")


if __name__ == "__main__":
    main()
