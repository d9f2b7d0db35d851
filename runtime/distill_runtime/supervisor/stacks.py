"""Evidence of a hang: the role's processes write their stacks to the log when the supervisor asks them to."""

import logging
import os
import time
from collections.abc import Callable

from distill_runtime.contract.outcome import Progress
from distill_runtime.process import STACKS_SIGNAL
from distill_runtime.supervisor.processes import catches, descendants, send

SECONDS_TO_WRITE = 0.5
"""What a process gets to write its stacks; it takes milliseconds, also where the interpreter hangs."""

log = logging.getLogger(__name__)


class StandstillWatch:
    """How long the progress has stood still. What was never reported doesn't stand still."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: tuple[str, int, int | None] | None = None
        self._since = clock()

    def look(self, progress: Progress | None) -> None:
        """Takes in the newest report."""
        if progress is None:
            return
        seen = (progress.stage, progress.done, progress.reused)
        if seen != self._last:
            self._last = seen
            self._since = self._clock()

    def still_for(self) -> float:
        """Seconds since a report that differed from the one before; 0 where there is none."""
        return 0.0 if self._last is None else self._clock() - self._since


def write_stacks(why: str) -> None:
    """Has every process below this one that can do so write its stacks to the log."""
    able = [pid for pid in descendants(os.getpid()) if catches(pid, STACKS_SIGNAL)]
    if not able:
        return
    log.warning("%s: the stacks of processes %s follow", why, ", ".join(map(str, able)))
    send(able, STACKS_SIGNAL)
    time.sleep(SECONDS_TO_WRITE)
