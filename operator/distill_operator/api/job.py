"""The resource. Sections, defaults and bounds come from the contract; only what is the resource's own is here."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from distill_operator.api.pods import RolePods
from distill_operator.api.policy import Policy
from distill_operator.api.status import DistillJobStatus, Time
from distill_runtime.contract.run import Work
from distill_runtime.contract.sections import Section

API_VERSION = "distill-operator.io/v1alpha1"
KIND = "DistillJob"

JobName = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", max_length=40)]
"""A DNS-1035 label of at most 40 characters: names of Services and pods are made from it."""
Namespace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]


class Metadata(Section):
    """The part of Kubernetes' object metadata that is used here; what else a server adds is left aside."""

    model_config = ConfigDict(extra="ignore")

    name: JobName
    """Name of the job."""
    namespace: Namespace = "default"
    """Namespace of the job."""
    uid: str | None = Field(default=None, min_length=1, max_length=63)
    """Identity of the object, given by the API server."""
    generation: int = Field(default=1, ge=0)
    """Counts the changes of the spec."""
    creation_timestamp: Time | None = None
    """When the object was made."""
    deletion_timestamp: Time | None = None
    """When the object's deletion was asked for."""
    resource_version: str | None = None
    """Version of the object, for writes that must not meet another's."""
    labels: dict[str, str] = Field(default={})
    """Labels."""
    annotations: dict[str, str] = Field(default={})
    """Annotations."""


class JobSpec(Work):
    """What is wanted: the work, and how the operator treats it."""

    policy: Policy = Policy()
    """How failures, hangs and ends are treated."""
    pods: RolePods = RolePods()
    """The pods of each role: node pools, resources, environment, volumes."""
    suspend: bool = False
    """Holds the job: no pod runs until it is false."""
    managed_by: str | None = Field(default=None, min_length=1, max_length=253)
    """Another controller that looks after this job. Unset: this operator."""

    def work(self) -> Work:
        """The part that the containers read."""
        return Work.model_construct(**{name: getattr(self, name) for name in Work.model_fields})


class DistillJob(Section):
    """A distillation: a teacher, a student, data and a place for the results."""

    api_version: Literal["distill-operator.io/v1alpha1"]
    """Version of this resource."""
    kind: Literal["DistillJob"]
    """Kind of this resource."""
    metadata: Metadata
    """Name, namespace, labels."""
    spec: JobSpec
    """What is wanted."""
    status: DistillJobStatus | None = None
    """What the operator reports; never read from a manifest."""
