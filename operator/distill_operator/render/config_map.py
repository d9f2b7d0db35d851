"""The attempt's ConfigMap: made when the attempt begins, never changed, read by its pods and by the operator."""

import json
from collections.abc import Mapping
from typing import Any, cast

from distill_operator.api import DistillJob
from distill_operator.constants import CHILDREN_KEY, DIGEST_ANNOTATION, RUN_CONFIG_KEY
from distill_operator.render.attempt import Rendered
from distill_operator.render.manifest import Manifest, canonical_json, child_manifest

LONGEST_DATA_BYTES = 2**20
"""Most that the API server takes as a ConfigMap's data."""


class UnreadableConfigMap(Exception):
    """A ConfigMap that holds no attempt. The message says which and why."""


def config_map(job: DistillJob, rendered: Rendered, attempt: int) -> Manifest:
    """The ConfigMap of an attempt."""
    manifest = child_manifest("configMap", job, attempt)
    manifest["metadata"]["annotations"] = {DIGEST_ANNOTATION: rendered.digest}
    return {**manifest, "immutable": True, "data": config_map_data(rendered)}


def config_map_data(rendered: Rendered) -> dict[str, str]:
    """Its data."""
    return {RUN_CONFIG_KEY: rendered.run_config, CHILDREN_KEY: canonical_json(rendered.children)}


def read_config_map(manifest: Mapping[str, Any]) -> Rendered:
    """What an attempt's ConfigMap from the API server holds.

    Raises
    ------
    UnreadableConfigMap
        A key is missing, or the manifests in it are no manifests.
    """
    metadata = manifest.get("metadata", {})
    where = f"ConfigMap {metadata.get('namespace')}/{metadata.get('name')}"
    data = cast("Mapping[str, str]", manifest.get("data") or {})
    for key in (RUN_CONFIG_KEY, CHILDREN_KEY):
        if key not in data:
            raise UnreadableConfigMap(f"{where} has no {key}: it is not the record of an attempt; delete it")
    try:
        children: Any = json.loads(data[CHILDREN_KEY])
    except json.JSONDecodeError as error:
        raise UnreadableConfigMap(f"{where}: {CHILDREN_KEY} is not JSON ({error}); delete it") from error
    if not _are_manifests(children):
        raise UnreadableConfigMap(f"{where}: {CHILDREN_KEY} holds no manifests by name; delete it")
    return Rendered(run_config=data[RUN_CONFIG_KEY], children=children)


def _are_manifests(children: Any) -> bool:
    if not isinstance(children, dict):
        return False
    return all(
        isinstance(child, dict) and {"apiVersion", "kind", "metadata"} <= cast("Manifest", child).keys()
        for child in cast("dict[str, Any]", children).values()
    )
