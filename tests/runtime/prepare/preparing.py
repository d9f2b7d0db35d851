"""`prepare` for tests: as a process of its own, or in this one where many variants are compared."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_runtime.contract import environment
from distill_runtime.contract.run import RunConfig
from distill_runtime.prepare.role import prepare
from distill_runtime.prepared import Prepared, read_prepared
from distill_runtime.process import Facts
from distill_runtime.store.open import open_store

SECONDS = 240
"""Longer than any preparation here takes on two busy cores."""


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, section by section; None removes a field."""
    result = deepcopy(base)
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = merged(result[name], value)
        else:
            result[name] = value
    return result


@dataclass(frozen=True)
class Ended:
    """How a process of `prepare` ended."""

    code: int
    outcome: dict[str, Any]
    log: str

    @property
    def message(self) -> str:
        """The sentence for the user."""
        return self.outcome["message"]

    @property
    def facts(self) -> dict[str, Any]:
        """What it reported."""
        return self.outcome["facts"]


@dataclass
class Job:
    """A job's folder and its work, as in a manifest."""

    folder: Path
    work: dict[str, Any]
    uid: str = "uid-1"
    environment: dict[str, str] = field(default_factory=dict)

    def changed(self, changes: dict[str, Any], *, uid: str | None = None) -> "Job":
        """The same job with other fields, in the same store."""
        return Job(self.folder, merged(self.work, changes), uid or self.uid, self.environment)

    @property
    def config(self) -> RunConfig:
        """Its run configuration."""
        return RunConfig.model_validate(
            {"namespace": "test", "name": "job", "uid": self.uid, "attempt": 1, "work": self.work}
        )

    def run(self, command: Sequence[str] = ("-m", "distill_runtime.prepare")) -> Ended:
        """Runs `python -m distill_runtime.prepare`, or what else is to be run of it."""
        state = self.folder / "state"
        state.mkdir(exist_ok=True)
        (state / "outcome.json").unlink(missing_ok=True)
        path = self.folder / "run.json"
        path.write_text(self.config.model_dump_json(by_alias=True))
        ended = subprocess.run(
            [sys.executable, *command],
            env={
                **os.environ,
                environment.RUN_CONFIG: str(path),
                environment.STATE_DIR: str(state),
                environment.CACHE_DIR: str(self.folder / "cache"),
                **self.environment,
            },
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return Ended(ended.returncode, json.loads((state / "outcome.json").read_text()), ended.stderr)

    def prepare_here(self) -> tuple[Prepared, Facts]:
        """Runs `prepare` in this process, and reads what it left."""
        facts = prepare(self.config)
        return self.prepared, facts

    @property
    def prepared(self) -> Prepared:
        """What `prepare` left in the store."""
        return read_prepared(open_store(self.config.work.storage), self.config)

    @property
    def objects(self) -> set[str]:
        """All objects of the directory store; its own notes are in hidden folders."""
        root = Path(self.work["storage"]["uri"].removeprefix("file://"))
        keys = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        return {key for key in keys if not key.startswith(".")}
