"""Where Hydra finds HDPO's groups (``use``, ``hdpo``, ``control``, ``device``) from every config.

Imported by every program that uses Hydra, once this package is installed: nothing but Hydra is imported here.
"""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

PROVIDER = "verl-recipe-hdpo"
PATH = "pkg://recipe.hdpo.config"


class HDPOSearchPath(SearchPathPlugin):
    """Adds the recipe's config folder behind the program's own, which stays in front."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra before it composes."""
        search_path.append(provider=PROVIDER, path=PATH)
