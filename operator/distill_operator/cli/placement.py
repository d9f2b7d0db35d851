"""Cores and GPUs of this machine, divided between the containers that run side by side."""

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distill_operator.cli.refusal import Refusal
from distill_operator.render import Container
from distill_runtime.contract.outcome import ExitCode
from distill_runtime.contract.run import Work

THREADS = "OMP_NUM_THREADS"
WAITING = "OMP_WAIT_POLICY"
DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Machine:
    """What there is to divide."""

    cores: int
    gpus: tuple[str, ...] = ()
    """Names as in CUDA_VISIBLE_DEVICES."""


def this_machine(environ: Mapping[str, str] = os.environ) -> Machine:
    """The cores that this process may use, and the GPUs that `nvidia-smi` or CUDA_VISIBLE_DEVICES names."""
    cores = len(os.sched_getaffinity(0))
    if DEVICES in environ:
        return Machine(cores, tuple(name.strip() for name in environ[DEVICES].split(",") if name.strip()))
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Machine(cores)
    listing = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=60, check=False)
    count = sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
    return Machine(cores, tuple(str(number) for number in range(count)))


def gpus_of(container: Container, work: Work) -> int:
    """GPUs that this container works on."""
    return {
        "prepare": 0,
        "teacher": work.teacher.gpus,
        "student": work.student.gpus_per_worker,
        "evaluate": work.student.gpus_per_worker,
    }[container.role]


def check_gpus(work: Work, machine: Machine) -> None:
    """Refuses a job that needs more GPUs than there are, before anything starts.

    Raises
    ------
    Refusal
        With what each half needs and what to change.
    """
    teachers = work.teacher.replicas * work.teacher.gpus
    students = work.student.workers * work.student.gpus_per_worker
    together = work.signal.mode != "offline"
    needed = teachers + students if together else max(teachers, students)
    if needed <= len(machine.gpus):
        return
    remedy = "spec.teacher.gpus: 0 and spec.student.gpusPerWorker: 0 use the processor"
    if together and max(teachers, students) <= len(machine.gpus):
        remedy = "spec.signal.mode: offline runs one half after the other"
    raise Refusal(
        ExitCode.USER_ERROR,
        f"this job needs {needed} GPUs (teacher {teachers}, student {students}, mode {work.signal.mode}) and this "
        f"machine has {len(machine.gpus)}: {remedy}",
    )


def shares(
    containers: Sequence[Container], work: Work, machine: Machine, environ: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """The environment that gives each container its own GPUs, or the cores.

    Containers on cores all get all of them, so that one that is left alone uses them; but their threads must sleep
    while they wait. By default they spin, and two processes that spin on the same cores get half of what they get when
    one runs after the other. What the user set himself stands.
    """
    on_cores = [container for container in containers if gpus_of(container, work) == 0]
    free = list(machine.gpus)
    result: dict[str, dict[str, str]] = {}
    for container in containers:
        own: dict[str, str] = {}
        count = gpus_of(container, work)
        if machine.gpus:
            own[DEVICES] = ",".join(free[:count])
            free = free[count:]
        if count == 0 and THREADS not in environ:
            own[THREADS] = str(machine.cores)
            if len(on_cores) > 1 and WAITING not in environ:
                own[WAITING] = "PASSIVE"
        result[container.name] = own
    return result


def free_port() -> int:
    """A TCP port that nobody on this machine listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
