"""All that an attempt runs: rendered once when it begins, and what of it should exist now."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distill_operator.api import DistillJob
from distill_operator.configuration import OperatorConfiguration
from distill_operator.constants import DIGEST_ANNOTATION
from distill_operator.lifecycle.decision import Children
from distill_operator.render.batch_job import batch_job
from distill_operator.render.budget import teacher_budget
from distill_operator.render.config import run_config
from distill_operator.render.manifest import Manifest, canonical_json, digest_of
from distill_operator.render.merge import role_pods
from distill_operator.render.names import CHILDREN, Child
from distill_operator.render.network_policy import network_policy
from distill_operator.render.role import RoleInAttempt
from distill_operator.render.service import student_service, teacher_service
from distill_operator.render.student import student_set
from distill_operator.render.teacher import teacher_deployment
from distill_runtime.contract import environment
from distill_runtime.contract.run import Role

LEAST_TEACHERS_OF_A_BUDGET = 2
"""With one replica a budget has nothing to say: it may go, and another one takes its place."""


@dataclass(frozen=True)
class Rendered:
    """What an attempt's ConfigMap holds."""

    run_config: str
    """The run configuration, as JSON."""
    children: dict[str, Manifest]
    """Manifests by `names.Child`. One of another version of the operator may lack some, or have others."""

    @property
    def digest(self) -> str:
        """Digest of both: the same for the same content, whoever rendered it."""
        return digest_of(canonical_json([self.run_config, self.children]))


def render_attempt(job: DistillJob, configuration: OperatorConfiguration, attempt: int) -> Rendered:
    """Renders an attempt of a job that an API server holds.

    Raises
    ------
    ValueError
        The job has no uid.
    """
    pods = role_pods(job, configuration)

    def role(name: Role) -> RoleInAttempt:
        return RoleInAttempt(job, attempt, name, pods[name])

    children: dict[Child, Manifest] = {
        "studentService": student_service(job, attempt),
        "teacherService": teacher_service(job, attempt),
        "teacherBudget": teacher_budget(job, attempt),
        "prepare": batch_job("prepare", role("prepare")),
        "teacher": teacher_deployment(role("teacher")),
        "student": student_set(role("student")),
        "evaluate": batch_job("evaluate", role("evaluate")),
    }
    if configuration.network_policies:
        children["networkPolicy"] = network_policy(job, configuration, attempt)
    config = run_config(job, uid=job.metadata.uid or "", attempt=attempt)
    return Rendered(
        run_config=config.model_dump_json(by_alias=True),
        children={child: children[child] for child in CHILDREN if child in children},
    )


def select(rendered: Rendered, wanted: Children) -> list[Manifest]:
    """What should exist now beside the ConfigMap, in the order in which to apply it.

    Each manifest has its digest as an annotation: of all else that is in it, `replicas` among it.
    """
    if wanted.attempt is None:
        return []
    order = [*CHILDREN, *sorted(rendered.children.keys() - set(CHILDREN))]
    manifests = [
        _filled_in(child, rendered.children[child], wanted)
        for child in order
        if child in rendered.children and _is_wanted(child, wanted)
    ]
    return [_with_digest(manifest) for manifest in manifests]


def _is_wanted(child: str, wanted: Children) -> bool:
    match child:
        case "prepare":
            return wanted.prepare
        case "evaluate":
            return wanted.evaluate
        case "teacher":
            return wanted.teachers is not None
        case "student":
            return wanted.students is not None
        case "teacherBudget":
            return wanted.running and (wanted.teachers or 0) >= LEAST_TEACHERS_OF_A_BUDGET
        case _:
            return wanted.running


def _filled_in(child: str, manifest: Manifest, wanted: Children) -> Manifest:
    filled = copy.deepcopy(manifest)
    if child == "teacher":
        filled["spec"]["replicas"] = wanted.teachers
    if child == "student":
        filled["spec"]["replicas"] = wanted.students
        variables: Sequence[dict[str, Any]] = filled["spec"]["template"]["spec"]["containers"][0]["env"]
        for variable in variables:
            if variable["name"] == environment.TEACHERS:
                variable["value"] = str(wanted.announced_teachers)
    return filled


def _with_digest(manifest: Manifest) -> Manifest:
    annotations = manifest["metadata"].get("annotations", {})
    digest = digest_of(canonical_json(manifest))
    return {
        **manifest,
        "metadata": {**manifest["metadata"], "annotations": {**annotations, DIGEST_ANNOTATION: digest}},
    }
