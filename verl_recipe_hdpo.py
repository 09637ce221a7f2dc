"""The entry point that verl loads in every process: it imports HDPO's plug-in, or says why it cannot be found.

HDPO is ``recipe.hdpo``, and ``recipe`` is a namespace: folders of that name on the import path are one package, as long
as none of them has an ``__init__.py``. One that has it hides all others. verl passes over a plug-in that does not
import, so without the message below a user learns no more than that a trainer or a configuration is unknown.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from pathlib import Path

PLUGIN = "recipe.hdpo.plugin"

logger = logging.getLogger(__name__)


def load() -> None:
    """Import the plug-in; where something else named ``recipe`` hides it, log an error that says what, and the way out.

    Raises:
        ImportError: anything else that keeps it from being imported.
    """
    try:
        importlib.import_module(PLUGIN)
    except ModuleNotFoundError:
        found = hiding()
        if found is None:
            raise
        logger.error(hidden_message(found))


def hiding() -> Path | None:
    """The file of a module or regular package ``recipe``; None where ``recipe`` is a namespace, as it should be."""
    spec = importlib.util.find_spec("recipe")
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def hidden_message(found: Path) -> str:
    """What hides HDPO, and what to do."""
    if found.name == "__init__.py":
        folder, way_out = found.parents[1], "If that file is empty, remove it: verl's recipes need none. If not, rename"
    else:
        folder, way_out = found.parent, "Rename"
    return (
        f"HDPO is installed but cannot be imported: `import recipe` finds {found}, which hides recipe.hdpo, so that "
        f"verl knows neither HDPO's trainer nor its configuration. {way_out} your `recipe`, or keep {folder} out of "
        "PYTHONPATH and start from another folder."
    )


load()
