"""What the kernel is told and asked of processes."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that ask the container to end."""
HEARD = {signal.SIGCHLD, *ASKING}
"""Signals that the supervisor waits for; they are blocked everywhere else in it."""
LAUNCH = Path(__file__).with_name("launch.py")
"""What a child runs before it becomes its command."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """From here on orphaned descendants become children of this process."""
    _set_process_option(_PR_SET_CHILD_SUBREAPER, 1)


def hear_of_parents_death() -> None:
    """From here on the death of the thread that started this process comes as SIGHUP."""
    _set_process_option(_PR_SET_PDEATHSIG, int(signal.SIGHUP))


def _set_process_option(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def start(command: Sequence[str], environ: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Starts a command in a session of its own. It gets SIGTERM when this thread dies, and hears all signals.

    No code of ours runs between fork and exec: other threads of this process may hold locks that the child would wait
    for. What the child must do about itself it does in `launch`.
    """
    launch = [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid())]
    return subprocess.Popen([*launch, *command], env=dict(environ), start_new_session=True)


def reap(wanted: int) -> int | None:
    """Takes the end of all children that have ended; the wait status of the wanted one, once it has."""
    found: int | None = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == wanted:
            found = status


def descendants(pid: int) -> list[int]:
    """All processes below this one that have not been reaped."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path(f"/proc/{entry}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    level = [pid]
    while level:
        level = [child for parent in level for child in children.get(parent, [])]
        found += level
    return found


def send(pids: Sequence[int], number: signal.Signals) -> None:
    """Sends a signal to those that still exist."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def catches(pid: int, number: signal.Signals) -> bool:
    """Has the process a handler for this signal? One that has none would die of most."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = next((line.partition(":")[2] for line in lines if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (int(number) - 1) & 1)
