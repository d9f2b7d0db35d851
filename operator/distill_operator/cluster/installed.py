"""Whether the API server knows DistillJobs, and as well as this operator does.

`helm upgrade` and old manifests may leave an older definition: then fields of users are dropped without a word.
Discovery and OpenAPI say it to every user, so no right to read definitions is needed.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import Any, cast

from distill_operator.api.crd import custom_resource_definition
from distill_operator.cluster.client import Client
from distill_operator.cluster.errors import NOT_FOUND, ClusterError
from distill_operator.cluster.resources import DISTILL_JOBS

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""Time between two looks for a definition that isn't there."""
MOST_FIELDS_NAMED = 5


async def wait_until_installed(client: Client) -> None:
    """Waits until the API server is there and knows DistillJobs, and says what it waits for."""
    said = ""
    while problem := await _problem(client):
        if problem != said:
            logger.warning("waiting: %s", problem)
            said = problem
        await asyncio.sleep(LOOK_SECONDS)


async def _problem(client: Client) -> str:
    try:
        found = await client.read(f"/apis/{DISTILL_JOBS.api_version}")
    except ClusterError as error:
        if error.status == NOT_FOUND:
            return f"{DISTILL_JOBS.api_version} isn't installed: apply the CustomResourceDefinition of this version"
        return str(error)
    plurals = {resource["name"] for resource in found.get("resources", [])}
    missing = {DISTILL_JOBS.plural, f"{DISTILL_JOBS.plural}/status"} - plurals
    return f"{DISTILL_JOBS.api_version} has no {', '.join(sorted(missing))}" if missing else ""


async def warn_if_older(client: Client) -> None:
    """Says in the log which fields the installed definition lacks. Never fails: jobs without them work."""
    try:
        document = await client.read(f"/openapi/v3/apis/{DISTILL_JOBS.api_version}")
    except ClusterError as error:
        logger.warning("the installed definition could not be compared with this operator's: %s", error)
        return
    missing = missing_fields(document)
    if missing:
        named = ", ".join(missing[:MOST_FIELDS_NAMED]) + (", …" if len(missing) > MOST_FIELDS_NAMED else "")
        logger.error(
            "the installed definition of DistillJobs is older than this operator: it drops %d fields that jobs may set "
            "(%s); apply the CustomResourceDefinition of this version",
            len(missing),
            named,
        )


def missing_fields(document: Mapping[str, Any]) -> list[str]:
    """Fields of our definition that the API server's OpenAPI document lacks; shortest paths only."""
    schemas = cast("Mapping[str, Mapping[str, Any]]", document.get("components", {}).get("schemas", {}))
    version = custom_resource_definition()["spec"]["versions"][0]
    own = set(_fields(version["schema"]["openAPIV3Schema"]))
    installed = {field for schema in schemas.values() if _is_ours(schema) for field in _fields(schema)}
    missing = own - installed
    return sorted(field for field in missing if field.rpartition(".")[0] not in missing)


def _is_ours(schema: Mapping[str, Any]) -> bool:
    kinds: list[Mapping[str, str]] = schema.get("x-kubernetes-group-version-kind", [])
    return any(kind.get("kind") == DISTILL_JOBS.kind for kind in kinds)


def _fields(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Paths of all fields below spec and status."""
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    for name, inner in properties.items():
        if not path and name not in ("spec", "status"):
            continue
        yield (below := f"{path}.{name}" if path else name)
        yield from _fields(inner, below)
    for nested in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(nested, dict):
            yield from _fields(cast("Mapping[str, Any]", nested), path)
