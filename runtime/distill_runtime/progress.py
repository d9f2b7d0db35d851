"""Progress of a role, as a file that its supervisor serves and the command line shows."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from distill_runtime.contract import environment
from distill_runtime.contract.outcome import PROGRESS_FILE, Progress
from distill_runtime.contract.run import Role

SECONDS_BETWEEN_WRITES = 0.5
"""More often than this nobody looks."""


def write_atomically(path: Path, text: str) -> None:
    """Writes a small text file so that a reader sees all of it or what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def state_folder() -> Path:
    """The folder of this container alone, from the environment; the current folder without one."""
    return Path(os.environ.get(environment.STATE_DIR, "."))


def cache_folder() -> Path:
    """The folder for what may be lost, from the environment; inside the state folder without one."""
    return Path(os.environ.get(environment.CACHE_DIR) or state_folder() / "cache")


class ProgressReporter:
    """Writes the newest progress of one role, at most twice a second; a change of stage is written at once."""

    def __init__(self, role: Role, folder: Path | None = None) -> None:
        self._path = (folder or state_folder()) / PROGRESS_FILE
        self._current = Progress(role=role, stage="start")
        self._written = 0.0

    def update(self, **changes: Any) -> None:
        """Sets fields of `Progress`; fields that aren't named stay."""
        before = self._current
        self._current = Progress.model_validate({**before.model_dump(), **changes, "time": time.time()})
        finished = self._current.done == self._current.total
        due = time.monotonic() - self._written >= SECONDS_BETWEEN_WRITES
        if due or finished or self._current.stage != before.stage:
            write_atomically(self._path, self._current.model_dump_json(by_alias=True))
            self._written = time.monotonic()
