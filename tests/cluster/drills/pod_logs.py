"""What all pods of a cluster wrote, also those that are long gone."""

import json
import os
import threading
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

LOOK_SECONDS = 0.3
LOG_FOLDER = Path("var/log/pods")


class Line(NamedTuple):
    """One record of a pod's log."""

    time: datetime
    pod: str
    message: str


class PodLogs(threading.Thread):
    """Keeps the log files of all pods of nodes: a second name for each, which outlives the kubelet's."""

    def __init__(self, nodes: list[Path], folder: Path) -> None:
        super().__init__(name="pod-logs", daemon=True)
        self._nodes = nodes
        self._folder = folder
        self._end = threading.Event()

    def run(self) -> None:
        """Looks for new files until it is stopped."""
        self._folder.mkdir(parents=True, exist_ok=True)
        while not self._end.wait(LOOK_SECONDS):
            self.keep()

    def stop(self) -> None:
        """Ends it."""
        self._end.set()
        self.join()

    def keep(self) -> None:
        """Gives all files that are there now their second name."""
        for node in self._nodes:
            for log in (node / LOG_FOLDER).glob("*/*/*.log"):
                kept = self._folder / f"{log.parts[-3]}+{log.parts[-2]}+{log.name}"
                try:
                    os.link(log, kept)
                except (FileExistsError, FileNotFoundError):
                    continue

    def lines(self, namespace: str, pod: str) -> list[Line]:
        """The records of all pods of a namespace whose names begin so, in order."""
        self.keep()
        found = [
            line
            for log in self._folder.glob(f"{namespace}_{pod}*+*+*.log")
            for line in _records(log, log.name.split("_")[1])
        ]
        return sorted(found)


def _records(log: Path, pod: str) -> list[Line]:
    """Reads the format of the container runtime interface: time, stream, whether the line is whole, text."""
    records: list[Line] = []
    for line in log.read_text(errors="replace").splitlines():
        moment, _, _, text = line.split(" ", 3)
        try:
            message = str(json.loads(text)["message"])
        except (ValueError, KeyError, TypeError):
            message = text
        records.append(Line(datetime.fromisoformat(moment), pod, message))
    return records
