"""What a manifest means on this machine: relative `file://` paths, and no volumes of a cluster."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, StringConstraints

from distill_operator.api.fields import constraints, field_type
from distill_operator.api.job import DistillJob
from distill_operator.api.load import InvalidJob

FILE = "file://"
PVC = "pvc://"

Model = TypeVar("Model", bound=BaseModel)


def resolve_local_paths(job: DistillJob, folder: Path) -> DistillJob:
    """The job with relative `file://` paths taken from `folder` (the manifest's). `~` is a name like any other.

    Raises
    ------
    InvalidJob
        A `pvc://` URI: volumes exist in a cluster only. All of them are named.
    """
    volumes: list[str] = []
    base = folder.absolute()

    def resolve(uri: str, path: str) -> str:
        if uri.startswith(PVC):
            volumes.append(f"{path}: {uri} is a volume of a cluster; on this machine use {FILE} with a path")
        if not uri.startswith(FILE):
            return uri
        return f"{FILE}{os.path.normpath(base / uri.removeprefix(FILE))}"

    resolved = job.model_copy(update={"spec": map_uris(job.spec, resolve, "spec")})
    if volumes:
        raise InvalidJob(job.metadata.name, volumes)
    return resolved


def map_uris(section: Model, change: Callable[[str, str], str], path: str) -> Model:
    """A copy of the section with every URI in it changed; `change` gets the URI and its field path."""
    changed: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        is_uri = any(
            isinstance(item, StringConstraints) and "://" in str(item.pattern)
            for item in constraints(field_type(field))
        )
        where = f"{path}.{field.alias or name}"
        changed[name] = _map_value(getattr(section, name), change, where, is_uri=is_uri)
    return section.model_copy(update=changed)


def _map_value(value: Any, change: Callable[[str, str], str], path: str, *, is_uri: bool) -> Any:
    if isinstance(value, BaseModel):
        return map_uris(value, change, path)
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return [_map_value(item, change, f"{path}[{index}]", is_uri=is_uri) for index, item in enumerate(items)]
    return change(value, path) if is_uri and isinstance(value, str) else value
