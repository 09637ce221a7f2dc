"""``python -m recipe.hdpo.data``."""

import sys

from recipe.hdpo.data import main

if __name__ == "__main__":
    sys.exit(main())
