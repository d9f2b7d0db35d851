"""The smallest job, and changes to it."""

import copy
from typing import Any

import yaml

from distill_operator.api import DistillJob, InvalidJob, load_job

SMALLEST: dict[str, Any] = {
    "apiVersion": "distill-operator.io/v1alpha1",
    "kind": "DistillJob",
    "metadata": {"name": "job"},
    "spec": {
        "teacher": {"model": "hf://big/model"},
        "student": {"model": "hf://small/model"},
        "data": {"train": "s3://bucket/*.jsonl"},
        "storage": {"uri": "s3://bucket"},
    },
}
REMOVE: Any = object()


def changed(path: str, value: Any) -> dict[str, Any]:
    """The smallest job with the field at the dotted path set, sections made on the way."""
    document = copy.deepcopy(SMALLEST)
    *sections, field = path.split(".")
    place = document
    for section in sections:
        place = place.setdefault(section, {})
    if value is REMOVE:
        del place[field]
    else:
        place[field] = value
    return document


def load(document: Any) -> DistillJob:
    return load_job(yaml.safe_dump(document), "job.yaml")


def errors_of(document: Any) -> list[str]:
    try:
        load(document)
    except InvalidJob as error:
        return error.errors
    raise AssertionError("the job is valid")
