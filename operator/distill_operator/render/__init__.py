"""What a DistillJob becomes. Pure: no I/O, no clock, the same job gives the same result, byte for byte.

- `attempt`: all of an attempt, rendered once, and what of it should exist now. `config_map`: where it is kept.
- One file for each child: `batch_job` (prepare, evaluate), `teacher`, `student`, `service`, `budget`, `network_policy`.
- What all pods share: `pod` (the template), `variables`, `volumes`, `claims` (of `pvc://` URIs), `resources`,
  `placement`, `merge` (defaults of the operator's configuration under the job's own), `role` (what a role's pods are
  rendered from), `names`, `manifest`.
- `containers`: the command and the own environment of every container. Where files are mounted or which GPUs a process
  sees is the place's business: pod templates in a cluster, `distillctl run` on one machine. `config`: the run
  configuration that they read.
- `refusal`: why a job may not run here, known before anything exists.

Invariants
- A manifest holds only fields that are ours, so that repeated server-side applies change nothing.
- An attempt is rendered once. Afterwards only `replicas` and the number of teachers that students are told of change.
- Selectors, `serviceName` and names depend on the job's name alone. `volumeClaimTemplates` can't be changed in place:
  they depend on `pods.student.modelCache` alone (`student` says what follows).
- Every pod passes the `restricted` Pod Security level, and writes to sized volumes only.
"""

from distill_operator.render.attempt import Rendered, render_attempt, select
from distill_operator.render.config import run_config
from distill_operator.render.config_map import UnreadableConfigMap, config_map, read_config_map
from distill_operator.render.containers import (
    MASTER_PORT,
    Container,
    evaluate_container,
    prepare_container,
    student_containers,
    teacher_containers,
)
from distill_operator.render.manifest import Manifest
from distill_operator.render.names import ChildName, child_names
from distill_operator.render.refusal import refusal

__all__ = [
    "MASTER_PORT",
    "ChildName",
    "Container",
    "Manifest",
    "Rendered",
    "UnreadableConfigMap",
    "child_names",
    "config_map",
    "evaluate_container",
    "prepare_container",
    "read_config_map",
    "refusal",
    "render_attempt",
    "run_config",
    "select",
    "student_containers",
    "teacher_containers",
]
