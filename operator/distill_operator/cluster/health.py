"""Whether this process works: what its probes answer.

An API server that is away is no illness, and neither is being the standby: another process would fare no better.
"""

import asyncio
from collections.abc import Sequence

from distill_operator.cluster.informer import Informer
from distill_operator.cluster.queue import KeyedQueue

WATCH_SECONDS = 180.0
"""A watch that was not even tried for so long has stopped."""
WORK_SECONDS = 600.0
"""A pass that takes so long hangs: each of its requests has a time-out."""


class Health:
    """What is known of the process's parts."""

    def __init__(self) -> None:
        self.installed = False
        """The API server was there and knows DistillJobs."""
        self.leading = False
        """This replica acts."""
        self.over = ""
        """Why the process is about to end by itself."""
        self.informers: Sequence[Informer] = ()
        self.queue: KeyedQueue | None = None

    def illness(self) -> str:
        """Why the process should be started again; empty while it works. That this is asked at all shows that its loop
        turns."""
        if self.over:
            return self.over
        now = asyncio.get_running_loop().time()
        for informer in self.informers:
            silent = now - informer.tried_at
            if silent > WATCH_SECONDS:
                return f"the watch of {informer.source} stopped {silent:.0f} s ago"
        if self.queue is not None and self.queue.in_work_seconds > WORK_SECONDS:
            return f"{self.queue.longest_in_work} has been in work for {self.queue.in_work_seconds:.0f} s"
        return ""

    def unready(self) -> str:
        """Why the process can't do its part yet; empty once it can. A standby's part is to wait."""
        if not self.installed:
            return "waiting for the API server to know DistillJobs"
        missing = [str(informer.source) for informer in self.informers if not informer.synced.is_set()]
        if self.leading and missing:
            return f"waiting for {', '.join(missing)}"
        return ""
