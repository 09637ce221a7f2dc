"""Hydra finds HDPO's groups in every program: ``+use=hdpo`` is enough.

Hydra imports every module below ``hydra_plugins`` in every program that uses it: nothing heavy is imported here.
"""

from __future__ import annotations

import contextlib

# Where another `recipe` hides HDPO there is nothing to find; verl_recipe_hdpo.py says so to those who use it.
with contextlib.suppress(ModuleNotFoundError):
    from recipe.hdpo.search_path import HDPOSearchPath as HDPOSearchPath
