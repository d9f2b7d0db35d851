"""The kinds that the operator touches, and where they are in the API."""

from dataclasses import dataclass

from distill_operator.api import API_VERSION, KIND
from distill_operator.constants import PLURAL


@dataclass(frozen=True)
class Resource:
    """One kind."""

    api_version: str
    kind: str
    plural: str
    """Its name in URLs."""

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of one object, of all in a namespace, or of all."""
        root = "/api" if "/" not in self.api_version else "/apis"
        scope = () if namespace is None else ("namespaces", namespace)
        parts = (root, self.api_version, *scope, self.plural, name, subresource)
        return "/".join(part for part in parts if part)

    def __str__(self) -> str:
        return self.kind


DISTILL_JOBS = Resource(API_VERSION, KIND, PLURAL)
PODS = Resource("v1", "Pod", "pods")
CONFIG_MAPS = Resource("v1", "ConfigMap", "configmaps")
SERVICES = Resource("v1", "Service", "services")
EVENTS = Resource("v1", "Event", "events")
DEPLOYMENTS = Resource("apps/v1", "Deployment", "deployments")
STATEFUL_SETS = Resource("apps/v1", "StatefulSet", "statefulsets")
BATCH_JOBS = Resource("batch/v1", "Job", "jobs")
NETWORK_POLICIES = Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
BUDGETS = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
LEASES = Resource("coordination.k8s.io/v1", "Lease", "leases")

WORKLOADS = (DEPLOYMENTS, STATEFUL_SETS, BATCH_JOBS)
"""Children that make pods: their status is read."""
METADATA_ONLY = (CONFIG_MAPS, SERVICES, NETWORK_POLICIES, BUDGETS)
"""Children of which only the metadata is watched: enough to see that they are there and unchanged."""
CHILDREN = (*WORKLOADS, *METADATA_ONLY)
"""Kinds that a job can own."""


def child_resource(api_version: str, kind: str) -> Resource:
    """The resource of a child's manifest.

    Raises
    ------
    ValueError
        No child is of this kind: the manifest was rendered by an operator of another version.
    """
    for resource in CHILDREN:
        if (resource.api_version, resource.kind) == (api_version, kind):
            return resource
    raise ValueError(f"{api_version} {kind} is not a kind of child that this version of the operator knows")
