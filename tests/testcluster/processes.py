"""The processes of a cluster: started with a mark, found by the mark, ended for certain."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.testcluster.errors import TestClusterError
from tests.testcluster.state import ClusterState, ProcessRecord, state_lock
from tests.testcluster.waiting import wait_until

ROOT_VARIABLE = "DISTILL_TESTCLUSTER_ROOT"
"""Every process of a cluster, and what it starts, has the cluster's root folder in this variable."""
END_SECONDS = 30.0
LOG_LINES = 15


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; None if there is no such process (any more).

    With the number it names a process for good: numbers alone are used again.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def marked_processes(root: Path) -> list[int]:
    """All processes that carry the mark of the cluster in `root`, whoever started them."""
    mark = f"{ROOT_VARIABLE}={root}".encode()
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if mark in environment.split(b"\0"):
            found.append(int(folder.name))
    return found


def kill_all(pids: Sequence[int]) -> None:
    """Kills processes; those that ended meanwhile are fine."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


class Processes:
    """The servers of one cluster, by name."""

    def __init__(self, root: Path, state: ClusterState) -> None:
        self._root = root
        self._state = state
        # Those that this process started: their ends have to be collected, or they stay as zombies.
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
        """Starts a server in a session of its own, with a log file of its own, and returns its process number."""
        log_file = self.log(name)
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**os.environ, **(environment or {}), ROOT_VARIABLE: str(self._root)},
                start_new_session=True,
            )
        self._children[name] = child
        with state_lock:
            self._state.processes[name] = ProcessRecord(pid=child.pid, start_ticks=start_ticks(child.pid))
            self._state.save(self._root)
        return child.pid

    def log(self, name: str) -> Path:
        """The file with what a server wrote."""
        return self._root / "logs" / f"{name}.log"

    def alive(self, name: str) -> bool:
        """Whether the server that was started under that name still runs."""
        record = self._state.processes.get(name)
        return record is not None and record.start_ticks is not None and start_ticks(record.pid) == record.start_ticks

    def check_alive(self, *names: str) -> bool:
        """True; an error with the end of its log for a server that has ended."""
        for name in names:
            if not self.alive(name):
                lines = self.log(name).read_text(errors="replace").splitlines()[-LOG_LINES:]
                raise TestClusterError("\n".join([f"{name} ended by itself. The end of {self.log(name)}:", *lines]))
        return True

    def send(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to a server that must be running."""
        self.check_alive(name)
        os.kill(self._state.processes[name].pid, number)

    def stop(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends a server and waits for its end. Nothing happens where it doesn't run."""
        if self.alive(name):
            os.kill(self._state.processes[name].pid, number)
            wait_until(f"the end of {name}", lambda: not self.alive(name), END_SECONDS)
        with state_lock:
            if self._state.processes.pop(name, None) is not None:
                self._state.save(self._root)
        if child := self._children.pop(name, None):
            child.wait(END_SECONDS)

    def kill_everything(self) -> None:
        """Kills all processes of the cluster, also those that nobody wrote down."""
        kill_marked(self._root)
        for child in self._children.values():
            child.wait(END_SECONDS)
        self._children.clear()


def kill_marked(root: Path) -> None:
    """Kills all processes that carry the mark of the cluster in `root`, and waits for their ends."""

    def none_left() -> bool:
        found = marked_processes(root)
        kill_all(found)
        return not found

    wait_until(f"the end of the processes of the cluster in {root}", none_left, END_SECONDS)
