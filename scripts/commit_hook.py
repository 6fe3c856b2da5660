"""Build hook of hatchling: the wheel names the commit it is built from, by ``SOURCE_COMMIT`` or a checkout."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface[Any]):
    """Adds ``gateway/COMMIT``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the commit before the build; an editable installation reads its checkout at run time instead."""
        commit = "" if version == "editable" else os.environ.get("SOURCE_COMMIT") or self._of_checkout()
        if not commit:
            return
        self._directory = tempfile.TemporaryDirectory()
        file = Path(self._directory.name) / "COMMIT"
        file.write_text(f"{commit}\n")
        build_data["force_include"][str(file)] = "gateway/COMMIT"

    def _of_checkout(self) -> str:
        if not (Path(self.root) / ".git").exists():
            return ""
        line = ["git", "-C", self.root, "rev-parse", "HEAD"]
        try:
            return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - a constant command
        except (OSError, subprocess.CalledProcessError):
            return ""

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary file after the build."""
        del version, build_data, artifact_path
        if hasattr(self, "_directory"):
            self._directory.cleanup()
