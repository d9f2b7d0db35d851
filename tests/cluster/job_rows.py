"""A DistillJob on the terminal: the rows of `kubectl get dj --watch`, one for each change."""

import subprocess
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

from tests.testcluster.kubectl import Kubectl

ENDED = ("Succeeded", "Failed")


def follow(kubectl: Kubectl, namespace: str, name: str, show: Callable[[str], None]) -> dict[str, Any]:
    """Shows a row at each change, and all pods once when both halves run. Returns the status at the end."""
    rows = Rows(show, lambda: show(kubectl("get", "pods", "-o", "wide", "-n", namespace).rstrip()))
    while not rows.ended:
        # A watch ends after some time, with the connection; the next one begins with the job as it is.
        with closing(_lines(kubectl, "get", "distilljob", name, "-n", namespace, "--watch")) as lines:
            for line in lines:
                rows.take(line)
                if rows.ended:
                    break
    return kubectl.json("get", "distilljob", name, "-n", namespace)["status"]


def _lines(kubectl: Kubectl, *arguments: str) -> Generator[str]:
    """The lines that kubectl writes, as they come. It is ended with the generator."""
    with subprocess.Popen(
        kubectl.command(*arguments), stdout=subprocess.PIPE, text=True, env=kubectl.environment
    ) as running:
        assert running.stdout is not None
        try:
            yield from (line.rstrip("\n") for line in running.stdout)
        finally:
            running.kill()


class Rows:
    """Rows of a job as kubectl prints them, without those that say nothing new."""

    def __init__(self, show: Callable[[str], None], both_run: Callable[[], None]) -> None:
        self._show = show
        self._both_run: Callable[[], None] | None = both_run
        self._shown: list[list[str]] = []
        """The cells of the header and of the last row, without the age, which changes by itself."""
        self.ended = False

    def take(self, line: str) -> None:
        """Takes the next line. Once a job has a status, the first two cells and the last two have something in them."""
        cells = line.split()[:-1]
        if cells in self._shown:
            return
        self._shown = [*self._shown[:1], cells]
        self._show(line)
        if len(cells) < 4:
            return
        phase, teacher, student = cells[1], cells[-2], cells[-1]
        self.ended = phase in ENDED
        if self._both_run is not None and phase == "Distilling" and _all_ready(teacher) and _all_ready(student):
            self._both_run()
            self._both_run = None


def _all_ready(text: str) -> bool:
    """Whether all of some wanted pods are ready, as `2/2` says."""
    ready, _, wanted = text.partition("/")
    return ready == wanted != "0"
