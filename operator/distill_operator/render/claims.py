"""Claims that `pvc://claim/path` URIs name, and which role reads them."""

from distill_operator.api import DistillJob
from distill_operator.render.role import RoleInAttempt

SCHEME = "pvc://"


def claims_of(role: RoleInAttempt) -> list[str]:
    """Claims that the pods of this role read, each once, sorted."""
    job = role.job
    read = {
        "prepare": [*data_uris(job), *teacher_uris(job), *student_uris(job)],
        "teacher": teacher_uris(job),
        "student": student_uris(job),
        "evaluate": student_uris(job),
    }[role.role]
    return sorted({claim_of(uri) for _, uri in read if uri.startswith(SCHEME)})


def claim_of(uri: str) -> str:
    """The claim that a `pvc://` URI names."""
    return uri.removeprefix(SCHEME).partition("/")[0]


def data_uris(job: DistillJob) -> list[tuple[str, str]]:
    """Where data is read from, each with its field. `prepare` alone reads it: the others read the plan."""
    data = job.spec.data
    return [
        *_each("spec.data.train", data.train),
        *((f"spec.data.sources[{index}].uri", source.uri) for index, source in enumerate(data.sources or [])),
        *_each("spec.data.evaluation", data.evaluation),
        *((f"spec.evaluation.tasks[{index}].data", task.data) for index, task in enumerate(job.spec.evaluation.tasks)),
    ]


def teacher_uris(job: DistillJob) -> list[tuple[str, str]]:
    """Where the teacher is read from, with its field."""
    return [("spec.teacher.model", job.spec.teacher.model)]


def student_uris(job: DistillJob) -> list[tuple[str, str]]:
    """Where the student before training is read from, with its field. One made of the teacher is in the store."""
    student = job.spec.student
    if student.model is not None:
        return [("spec.student.model", student.model)]
    if student.initialise is not None and student.initialise.from_config is not None:
        return [("spec.student.initialise.fromConfig.config", student.initialise.from_config.config)]
    return []


def _each(field: str, uris: str | list[str] | None) -> list[tuple[str, str]]:
    if isinstance(uris, list):
        return [(f"{field}[{index}]", uri) for index, uri in enumerate(uris)]
    return [] if uris is None else [(field, uris)]
