"""A thread that does something small at a steady pace."""

import logging
import threading
from collections.abc import Callable

from distill_runtime.errors import RunError

log = logging.getLogger(__name__)


class Heartbeat:
    """Calls `beat` every `seconds` until `stop`. A store that can't be reached is tried again at the next beat."""

    def __init__(self, beat: Callable[[], None], seconds: float, name: str) -> None:
        self._beat = beat
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                self._beat()
            except RunError as error:
                log.warning("a heartbeat failed: %s", error)

    def stop(self) -> None:
        """Ends the thread."""
        self._ended.set()
        self._thread.join()
