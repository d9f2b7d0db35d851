"""The containers of an attempt: what is started in each, and what it is told of its place among the others."""

from dataclasses import dataclass, field

from distill_operator.constants import MASTER_PORT
from distill_runtime.contract import environment
from distill_runtime.contract.run import Role, Work


@dataclass(frozen=True)
class Container:
    """One container: a pod's in a cluster, a process on one machine."""

    role: Role
    name: str
    """Unique within the attempt: `teacher-1`."""
    command: list[str] = field(hash=False)
    environment: dict[str, str] = field(default_factory=dict[str, str], hash=False)
    """What only the job decides; paths and devices are added by the place."""


def supervisor_command(role: Role) -> list[str]:
    """What every container of a role starts."""
    return ["python", "-m", "distill_runtime.supervisor", role]


def prepare_container() -> Container:
    """Tokenises the data and says what is missing. Runs before anything else, without a GPU."""
    return _container("prepare", "prepare", {})


def teacher_containers(replicas: int, *, evaluate: bool) -> list[Container]:
    """Teacher replicas that share the missing shards; with `evaluate` the first one scores the teacher itself too."""
    return [
        _container(
            "teacher",
            name := f"teacher-{number}",
            {environment.REPLICA: name} | ({environment.EVALUATE_TEACHER: "yes"} if evaluate and number == 0 else {}),
        )
        for number in range(replicas)
    ]


def student_environment(
    work: Work, *, teachers: int, master_address: str, master_port: int = MASTER_PORT
) -> dict[str, str]:
    """What all student workers are told, with `teachers` replicas running beside them."""
    return {
        environment.TEACHERS: str(teachers),
        environment.NODES: str(work.student.workers),
        environment.PROCESSES: str(max(1, work.student.gpus_per_worker)),
        environment.MASTER_ADDRESS: master_address,
        environment.MASTER_PORT: str(master_port),
    }


def student_containers(
    work: Work, *, teachers: int, master_address: str, master_port: int = MASTER_PORT
) -> list[Container]:
    """The student's workers, with `teachers` replicas running beside them."""
    shared = student_environment(work, teachers=teachers, master_address=master_address, master_port=master_port)
    return [
        _container("student", f"student-{rank}", {**shared, environment.NODE_RANK: str(rank)})
        for rank in range(work.student.workers)
    ]


def evaluate_container() -> Container:
    """Scores the student before and after, and writes the report."""
    return _container("evaluate", "evaluate", {})


def _container(role: Role, name: str, own: dict[str, str]) -> Container:
    return Container(role, name, supervisor_command(role), own)
