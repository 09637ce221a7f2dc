"""nvidia/OpenMathInstruct-2 (MATH and GSM8K problems and augmentations of them), as verl parquet.

The data set holds many solutions of one problem; the first usable one is kept. Of the first 70,000 problems 5 % are
held out, by seed 42, as in the paper. This is ``python -m recipe.hdpo.data --preset openmathinstruct2``, and takes its
options.

    python data_preprocess/openmathinstruct2.py --out data/openmathinstruct2
    python data_preprocess/openmathinstruct2.py --out data/openmathinstruct2 train-00000-of-00032.parquet
    python data_preprocess/openmathinstruct2.py --out data/openmathinstruct2 --only problem_source=math,gsm8k
"""

import sys
from collections.abc import Sequence

from recipe.hdpo.data import main as convert


def main(argv: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else list(argv)
    return convert(["--preset", "openmathinstruct2", *given])


if __name__ == "__main__":
    sys.exit(main())
