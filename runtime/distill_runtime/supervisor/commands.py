"""What is run for a role."""

import sys
from collections.abc import Mapping

from distill_runtime.contract import environment
from distill_runtime.contract.run import Role


def commands(role: Role, place: Mapping[str, str]) -> list[list[str]]:
    """What is run for this role, one after the other, each only if the one before ended well."""
    python = [sys.executable, "-m"]
    if role == "prepare":
        return [[*python, "distill_runtime.prepare"]]
    if role == "teacher":
        evaluation = [*python, "distill_runtime.evaluation", "--subject", "teacher"]
        scores = place.get(environment.EVALUATE_TEACHER) == "yes"
        return [[*python, "distill_runtime.teacher"], *([evaluation] if scores else [])]
    if role == "evaluate":
        return [[*python, "distill_runtime.evaluation", "--subject", "students"]]
    return [
        [
            *python,
            "torch.distributed.run",
            f"--nnodes={place.get(environment.NODES, '1')}",
            f"--node-rank={place.get(environment.NODE_RANK, '0')}",
            f"--nproc-per-node={place.get(environment.PROCESSES, '1')}",
            f"--master-addr={place.get(environment.MASTER_ADDRESS, '127.0.0.1')}",
            f"--master-port={place.get(environment.MASTER_PORT, '29400')}",
            "--max-restarts=0",
            "-m",
            "distill_runtime.student",
        ]
    ]
