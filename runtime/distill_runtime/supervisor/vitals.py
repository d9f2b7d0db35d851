"""What the supervisor's loop tells the HTTP server: written by the one thread, read by the others."""

import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from distill_runtime.contract.outcome import PROGRESS_FILE, Progress
from distill_runtime.contract.run import Role

STARTING_STAGES = ("start", "load", "canary")
"""Stages of a teacher that can't take work yet."""
WAITING_STAGE = "wait"
"""Stage of a teacher that others leave nothing to do: it is up, and its model is still to be loaded."""
SILENCE_SECONDS = 60.0
"""The loop turns every second; one that hasn't for so long hangs."""
ENDED_STAGE = "ended"
"""Stage of a container whose work is over."""


class Vitals:
    """Whether the container's parts are alive and how far its role is."""

    def __init__(self, role: Role, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.role: Role = role
        self._path = folder / PROGRESS_FILE
        self._clock = clock
        self._turned = clock()
        self._up = False
        self._has_started = False
        self._last_word: str | None = None

    def turned(self) -> None:
        """The loop is at work."""
        self._turned = self._clock()

    def role_is_up(self) -> None:
        """A process of the role was started."""
        self._up = True
        # Only a teacher takes long to become useful, and says when it is.
        self._has_started = self._has_started or self.role != "teacher"

    def role_is_down(self) -> None:
        """The processes of the role have ended."""
        self._up = False
        self._has_started = True

    def ended(self, last_word: str) -> None:
        """No work will be done any more."""
        self.role_is_down()
        self._last_word = last_word

    @property
    def up(self) -> bool:
        """Are there processes of the role?"""
        return self._up

    @property
    def healthy(self) -> bool:
        """Does the loop turn?"""
        return self._clock() - self._turned < SILENCE_SECONDS

    @property
    def started(self) -> bool:
        """Has the role been ready for work? Once its model was loaded, it stays so: a later stage may load another."""
        if not self._has_started:
            progress = self._reported()
            stage = STARTING_STAGES[0] if progress is None else progress.stage
            if stage == WAITING_STAGE:
                return True
            self._has_started = stage not in STARTING_STAGES
        return self._has_started

    def progress(self) -> Progress | None:
        """How far the role is; None while it hasn't said."""
        if self._last_word is not None:
            return Progress(role=self.role, stage=ENDED_STAGE, message=self._last_word[:1024], time=time.time())
        return self._reported()

    def _reported(self) -> Progress | None:
        try:
            return Progress.model_validate_json(self._path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
