"""Reading objects of the API server as plain data, and leaving out what nobody reads."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias, cast

from distill_operator.api import KIND
from distill_operator.cluster.resources import PODS, WORKLOADS, Resource
from distill_operator.constants import FIELD_MANAGER, GROUP, JOB_LABEL

Object: TypeAlias = dict[str, Any]
"""An object, or a part of one, as plain data."""


class JobKey(NamedTuple):
    """What tells jobs apart: a job that is made again under its name has the same key."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ObjectKey(NamedTuple):
    """Where an object is."""

    resource: Resource
    namespace: str
    name: str


def part_of(item: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of it; empty where it isn't there."""
    return item.get(name) or {}


def metadata_of(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Its metadata."""
    return part_of(item, "metadata")


def name_of(item: Mapping[str, Any]) -> str:
    """Its name."""
    return metadata_of(item).get("name", "")


def namespace_of(item: Mapping[str, Any]) -> str:
    """Its namespace."""
    return metadata_of(item).get("namespace", "")


def uid_of(item: Mapping[str, Any]) -> str:
    """Its identity."""
    return metadata_of(item).get("uid", "")


def labels_of(item: Mapping[str, Any]) -> Mapping[str, str]:
    """Its labels."""
    return metadata_of(item).get("labels") or {}


def annotations_of(item: Mapping[str, Any]) -> Mapping[str, str]:
    """Its annotations."""
    return metadata_of(item).get("annotations") or {}


def is_deleting(item: Mapping[str, Any]) -> bool:
    """Whether its deletion was asked for."""
    return bool(metadata_of(item).get("deletionTimestamp"))


def controller_of(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """The owner reference of its controller; empty where it has none."""
    owners = cast("list[Mapping[str, Any]]", metadata_of(item).get("ownerReferences") or [])
    nobody: Mapping[str, Any] = {}
    return next((owner for owner in owners if owner.get("controller")), nobody)


def job_keys(item: Mapping[str, Any]) -> Iterator[JobKey]:
    """The jobs that an object says it belongs to: by its label, and by its controller where the label was changed."""
    label = labels_of(item).get(JOB_LABEL)
    if label:
        yield JobKey(namespace_of(item), label)
    controller = controller_of(item)
    is_job = controller.get("kind") == KIND and controller.get("apiVersion", "").startswith(f"{GROUP}/")
    if is_job and controller["name"] != label:
        yield JobKey(namespace_of(item), controller["name"])


def version_of(item: Mapping[str, Any]) -> int:
    """Its resourceVersion, to tell the newer of two states of one object."""
    return int(metadata_of(item).get("resourceVersion") or 0)


def revision_of(item: Mapping[str, Any]) -> str:
    """What changes when somebody changes what the object wants: its generation, or else any change at all."""
    metadata = metadata_of(item)
    generation = metadata.get("generation")
    return f"generation {generation}" if generation else f"version {metadata.get('resourceVersion')}"


def scaled_by_others(item: Mapping[str, Any]) -> bool:
    """Whether an autoscaler owns `replicas`: somebody wrote them by the scale subresource, and no person by hand."""
    return any(
        entry.get("subresource") == "scale"
        and entry.get("manager") != FIELD_MANAGER
        and not str(entry.get("manager", "")).startswith("kubectl")
        and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in _managed_fields(item)
    )


def _managed_fields(item: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return metadata_of(item).get("managedFields") or []


_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
    "ownerReferences",
)
_POD_STATUS = ("phase", "reason", "message", "conditions", "podIP", "containerStatuses", "initContainerStatuses")


def pruned(resource: Resource, item: Mapping[str, Any]) -> Object:
    """The part of an object that is read later: without templates, foreign annotations and managed fields."""
    metadata = metadata_of(item)
    kept: Object = {name: metadata[name] for name in _METADATA if name in metadata}
    annotations = {name: value for name, value in annotations_of(item).items() if name.startswith(f"{GROUP}/")}
    if annotations:
        kept["annotations"] = annotations
    scaled = [entry for entry in _managed_fields(item) if entry.get("subresource") == "scale"]
    if scaled:
        kept["managedFields"] = scaled
    result: Object = {"metadata": kept}
    spec, status = part_of(item, "spec"), part_of(item, "status")
    if resource == PODS:
        result["spec"] = {name: spec[name] for name in ("nodeName",) if name in spec}
        result["status"] = {name: status[name] for name in _POD_STATUS if name in status}
    elif resource in WORKLOADS:
        result["spec"] = {name: spec[name] for name in ("replicas", "parallelism") if name in spec}
        result["status"] = dict(status)
    return result


def same_but_for_version(one: Object, other: Object) -> bool:
    """Whether nothing that is read differs. Objects without a generation differ in any change."""
    if "generation" not in metadata_of(one):
        return one == other
    return _without_version(one) == _without_version(other)


def _without_version(item: Object) -> Object:
    metadata = {name: value for name, value in item["metadata"].items() if name != "resourceVersion"}
    return {**item, "metadata": metadata}
