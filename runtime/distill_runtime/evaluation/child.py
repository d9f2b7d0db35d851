"""A child process that does one thing with a model: its end gives all memory back, and it ends when its parent does."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

from distill_runtime.contract.outcome import ExitCode

SECONDS_BETWEEN_LOOKS = 0.5
"""How often a child's progress is looked at."""


class Message(BaseModel):
    """What parent and child tell each other, in files."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ChildFailure(Message):
    """Why a child ended, where somebody else must mend something."""

    reason: str
    message: str
    retry: bool = False
    """Another attempt may do it."""


def run_child(
    module: str, arguments: list[str], look: Callable[[], None], *, environment: dict[str, str] | None = None
) -> int:
    """Runs `python -m module` to its end and returns its exit code; `look` is called again and again meanwhile, and
    once more at the end, however short it was.

    `environment` is added to this process's own.
    """
    # The child ends when its standard input does: nothing that kills this process leaves an engine behind.
    child = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        env=None if environment is None else {**os.environ, **environment},
    )
    try:
        while True:
            try:
                code = child.wait(timeout=SECONDS_BETWEEN_LOOKS)
            except subprocess.TimeoutExpired:
                look()
                continue
            look()
            return code
    finally:
        assert child.stdin is not None
        child.stdin.close()
        if child.poll() is None:
            child.kill()
            child.wait()


def end_with_parent() -> None:
    """For the child: from here on it ends when its parent does, however that ends."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(ExitCode.RETRY)

    threading.Thread(target=watch, daemon=True).start()
