"""Waiting for what another process does."""

import time
from collections.abc import Callable
from typing import TypeVar

from tests.testcluster.errors import TestClusterError

Value = TypeVar("Value")


def wait_until(what: str, probe: Callable[[], Value], seconds: float = 60.0, every: float = 0.05) -> Value:
    """Calls `probe` until it answers something true, and returns that; an error names `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := probe()):
        if time.monotonic() > deadline:
            raise TestClusterError(f"Gave up waiting for {what} after {seconds:.0f} s.")
        time.sleep(every)
    return value
