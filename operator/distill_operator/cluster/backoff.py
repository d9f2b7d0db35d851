"""How long to wait before trying again: longer each time, and not everybody at once."""

import random

FIRST_SECONDS = 0.5
MOST_SECONDS = 15.0
"""Recovery from an outage should not take much longer than the outage."""


def backoff_seconds(failures: int, *, first: float = FIRST_SECONDS, most: float = MOST_SECONDS) -> float:
    """Seconds to wait after so many failures in a row: doubled each time, less up to a half of it by chance."""
    # Beyond 2^16 doublings change nothing but the size of the number.
    full = min(most, first * 2 ** min(failures - 1, 16))
    return full * random.uniform(0.5, 1.0)
