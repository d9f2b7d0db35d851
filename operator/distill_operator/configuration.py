"""The operator's own configuration: one YAML file, rendered by the chart from its values."""

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from distill_operator.api.pods import RolePods
from distill_operator.constants import METRICS_PORT, PROBE_PORT
from distill_runtime.contract.sections import Section


class InvalidConfiguration(Exception):
    """The file can't be used. The message has one line for each mistake."""


class LeaderElection(Section):
    """How replicas of the operator agree on the one that acts."""

    enabled: bool = True
    """Off only where there is one replica and never two at an upgrade."""
    name: str = "distill-operator"
    """Name of the Lease."""
    namespace: str = "distill-operator"
    """Namespace of the Lease: the operator's own."""
    lease_seconds: float = Field(default=15, gt=0, le=3600)
    """How long others wait for a leader that is silent."""
    renew_seconds: float = Field(default=5, gt=0, le=3600)
    """How often the leader renews: at least twice in the time that others wait."""

    @model_validator(mode="after")
    def _renews_in_time(self) -> Self:
        if self.renew_seconds * 2 > self.lease_seconds:
            raise ValueError(f"renewSeconds is {self.renew_seconds:g}, more than half of leaseSeconds; use less")
        return self


class AllowList(Section):
    """What jobs may use. A pattern may hold `*`. Empty: everything."""

    images: list[str] = Field(default=[])
    """Runtime images."""
    service_accounts: list[str] = Field(default=[])
    """Service accounts."""


class OperatorConfiguration(Section):
    """What an administrator decides for all jobs."""

    runtime_image: str = Field(default="distill-operator/runtime:latest", min_length=1)
    """Image of all runtime pods without an image of their own."""
    runtime_image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When it is pulled."""
    pods: RolePods = RolePods()
    """Defaults of each role's pods: node pools, resources, volumes."""
    network_policies: bool = True
    """Whether jobs get NetworkPolicies."""
    operator_namespace: str = "distill-operator"
    """Where the operator's own pods are: NetworkPolicies let them ask for progress."""
    operator_labels: dict[str, str] = Field(default={"app.kubernetes.io/name": "distill-operator"})
    """Labels of the operator's own pods."""
    metrics_namespaces: list[str] = Field(default=[])
    """Namespaces whose pods may read the metrics of runtime pods, where NetworkPolicies hold: where Prometheus runs."""
    namespaces: list[str] = Field(default=[])
    """Namespaces to look after. Empty: all."""
    max_running_jobs: int | None = Field(default=None, ge=1)
    """Most jobs of one namespace that run at a time; others wait. Unset: no limit."""
    allow: AllowList = AllowList()
    """What jobs may use."""
    leader_election: LeaderElection = LeaderElection()
    """How replicas agree."""
    workers: int = Field(default=8, ge=1, le=256)
    """Jobs that are worked on at a time."""
    progress_seconds: float = Field(default=15, ge=0.1, le=3600)
    """Seconds between two looks at the pods' progress, and least time between two writes of progress alone."""
    resync_seconds: float = Field(default=300, ge=1, le=86400)
    """Seconds after which each job is looked at although nothing was heard of it."""
    metrics_port: int = Field(default=METRICS_PORT, ge=0, le=65535)
    """Port of the operator's metrics; 0: any free one."""
    probe_port: int = Field(default=PROBE_PORT, ge=0, le=65535)
    """Port of liveness and readiness; 0: any free one."""
    progress_port: int | None = Field(default=None, ge=1, le=65535)
    """Port at which pods are asked for their progress, where it isn't the usual one."""
    log_format: Literal["json", "text"] = "json"
    """`json` in pods, `text` on a terminal."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severity that is logged."""


def load_configuration(path: Path) -> OperatorConfiguration:
    """Reads the file.

    Raises
    ------
    InvalidConfiguration
        It isn't there, isn't YAML, or a field is wrong; each mistake with its field path.
    """
    try:
        document: Any = yaml.safe_load(path.read_text()) or {}
        return OperatorConfiguration.model_validate(document, by_alias=True, by_name=False)
    except OSError as error:
        raise InvalidConfiguration(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise InvalidConfiguration(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(str(part) for part in details['loc'])}: {details['msg']}" for details in error.errors()
        ]
        raise InvalidConfiguration("\n".join(lines)) from error
