"""The processes of pods, as this machine sees them."""

import os
import signal
from pathlib import Path

PROC = Path("/proc")
TEACHER = "distill_runtime.teacher"
STUDENT = "distill_runtime.student"
"""Modules that the roles' own processes run, as their command lines have them."""
SUPERVISOR = "distill_runtime.supervisor"


def processes_of(pod_uid: str, module: str) -> list[int]:
    """Ids of the processes of a pod that run a Python module, launchers of others left out."""
    found: list[int] = []
    for folder in PROC.glob("[0-9]*"):
        try:
            group = (folder / "cgroup").read_text()
            command = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if pod_uid in group and _runs(command, module):
            found.append(int(folder.name))
    return sorted(found)


def _runs(command: list[str], module: str) -> bool:
    """Whether `-m MODULE` is what the interpreter itself was started with: torchrun has it among its arguments."""
    return command[command.index("-m") + 1 : command.index("-m") + 2] == [module] if "-m" in command else False


def send(pod_uid: str, module: str, number: signal.Signals) -> None:
    """Sends a signal to all processes of a pod that run a module; there must be one."""
    found = processes_of(pod_uid, module)
    assert found, f"no process of pod {pod_uid} runs {module}"
    for pid in found:
        os.kill(pid, number)
