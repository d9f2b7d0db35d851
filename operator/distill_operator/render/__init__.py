"""What a DistillJob becomes. Pure: no I/O, no clock, the same job gives the same result.

- `config`: the run configuration of one attempt.
- `containers`: the command and the own environment of every container. Where files are mounted or which GPUs a process
  sees is the place's business: pod templates in a cluster, `distillctl run` on one machine.
"""

from distill_operator.render.config import run_config
from distill_operator.render.containers import (
    MASTER_PORT,
    Container,
    evaluate_container,
    prepare_container,
    student_containers,
    teacher_containers,
)

__all__ = [
    "MASTER_PORT",
    "Container",
    "evaluate_container",
    "prepare_container",
    "run_config",
    "student_containers",
    "teacher_containers",
]
