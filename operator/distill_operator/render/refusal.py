"""Why a job may not run in this cluster, where that is known before anything exists: one sentence, or None."""

import re
from collections.abc import Iterator
from itertools import chain

from pydantic import TypeAdapter, ValidationError

from distill_operator.api import DistillJob
from distill_operator.api.names import ObjectName
from distill_operator.api.pods import Pods
from distill_operator.configuration import OperatorConfiguration
from distill_operator.render.attempt import render_attempt
from distill_operator.render.claims import SCHEME, claim_of, data_uris, student_uris, teacher_uris
from distill_operator.render.config_map import LONGEST_DATA_BYTES, config_map_data
from distill_operator.render.merge import role_pods
from distill_runtime.contract.run import Role

_OBJECT_NAME: TypeAdapter[str] = TypeAdapter(ObjectName)


def refusal(job: DistillJob, configuration: OperatorConfiguration) -> str | None:
    """What of the job isn't allowed or can't work here.

    What the administrator configured himself is always allowed, and so is what a job leaves unset: the configured
    image, and the namespace's default service account, whose token is not mounted.
    """
    checks = (
        _not_allowed(job, configuration),
        _bad_claims(job),
        _misfits(job, configuration),
        _too_large(job, configuration),
    )
    return next(chain(*checks), None)


def _not_allowed(job: DistillJob, configuration: OperatorConfiguration) -> Iterator[str]:
    images, accounts = configuration.allow.images, configuration.allow.service_accounts
    for role, pods in _pods_by_role(job):
        for field, image in _images(role, pods):
            if not _matches(image, images):
                yield _sentence(field, image, "images", images)
        if pods.service_account is not None and not _matches(pods.service_account, accounts):
            yield _sentence(f"spec.pods.{role}.serviceAccount", pods.service_account, "service accounts", accounts)


def _pods_by_role(job: DistillJob) -> list[tuple[Role, Pods]]:
    pods = job.spec.pods
    return [
        ("prepare", pods.prepare),
        ("teacher", pods.teacher),
        ("student", pods.student),
        ("evaluate", pods.evaluate),
    ]


def _images(role: Role, pods: Pods) -> Iterator[tuple[str, str]]:
    if pods.image is not None:
        yield f"spec.pods.{role}.image", pods.image
    for index, volume in enumerate(pods.volumes):
        if volume.image is not None:
            yield f"spec.pods.{role}.volumes[{index}].image", volume.image


def _matches(value: str, patterns: list[str]) -> bool:
    """Whether one of the patterns fits all of the value; `*` stands for anything. Without patterns all is allowed."""
    return not patterns or any(
        re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), value, re.DOTALL) for pattern in patterns
    )


def _sentence(field: str, value: str, kind: str, patterns: list[str]) -> str:
    allowed = ", ".join(patterns)
    return (
        f"{field}: {value} is not among the {kind} that this cluster allows ({allowed}); use one of them, or leave the "
        "field out"
    )


def _bad_claims(job: DistillJob) -> Iterator[str]:
    for field, uri in [*data_uris(job), *teacher_uris(job), *student_uris(job)]:
        if uri.startswith(SCHEME) and not _is_object_name(claim_of(uri)):
            yield f"{field}: {uri} names no PersistentVolumeClaim; write it as pvc://claim/path"


def _is_object_name(name: str) -> bool:
    try:
        _OBJECT_NAME.validate_python(name)
    except ValidationError:
        return False
    return True


def _misfits(job: DistillJob, configuration: OperatorConfiguration) -> Iterator[str]:
    """What is right in the job and right in the configuration, and wrong in both together: a folder that both use."""
    for role, pods in role_pods(job, configuration).items():
        try:
            Pods.model_validate(pods.model_dump())
        except ValidationError as error:
            # More entries than a list of the spec may have is no misfit; what two fields say together is.
            together = [details for details in error.errors() if not details["loc"]]
            for details in together:
                said = details["msg"].removeprefix("Value error, ")
                yield f"spec.pods.{role}: together with its defaults, {said}"


def _too_large(job: DistillJob, configuration: OperatorConfiguration) -> Iterator[str]:
    data = config_map_data(render_attempt(job, configuration, 1))
    size = sum(len(key.encode()) + len(text.encode()) for key, text in data.items())
    if size > LONGEST_DATA_BYTES:
        yield (
            f"spec.pods: the manifests of an attempt would take {size:,} bytes, and a ConfigMap holds "
            f"{LONGEST_DATA_BYTES:,}; shorten environment variables, annotations or affinity"
        )
