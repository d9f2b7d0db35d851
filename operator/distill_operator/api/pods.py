"""How pods are placed and what they are given: the part of the spec that only a cluster understands."""

from collections.abc import Hashable, Iterable
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from distill_operator.api.affinity import Affinity
from distill_operator.api.names import DataKey, LabelKey, LabelValue, ObjectName, VariableName
from distill_operator.api.quantities import Quantity, amount
from distill_operator.api.volumes import ModelCache, Volume
from distill_runtime.contract.sections import Section

OWN_VARIABLES = "DISTILL_"
"""How the names of the operator's own environment variables begin."""
NOT_OWN_VARIABLE = f"must not begin with {OWN_VARIABLES}: such names are the operator's own"
ONE_VALUE = "give exactly one of value, secret and configMap"
VALUE_IS_NOT_READ = "value is not compared with operator Exists: leave it out"
KEY_OR_EXISTS = "without key, operator must be Exists"
SECONDS_OF_NO_EXECUTE = "tolerationSeconds needs effect NoExecute"
OWN_RESOURCES = ("cpu", "memory", "ephemeral-storage")
RESOURCES_WITH_FIELDS = "cpu, memory and ephemeral-storage have fields of their own"
WHOLE_RESOURCES = "extra resources are counted in whole numbers"
CPU_IN_LIMIT = "cpu must not be more than cpuLimit"
SHARED_MEMORY_IN_MEMORY = "sharedMemory must not be more than memory, which includes it"
MOUNTS_DIFFER = "two volumes have the same mountPath"
VARIABLES_DIFFER = "two environment variables have the same name"
VOLUMES_DIFFER = "two volumes have the same name"
SPREADS_DIFFER = "two entries of topologySpread have the same topologyKey and whenUnsatisfiable"


def _not_own_variable(name: str) -> str:
    if name.startswith(OWN_VARIABLES):
        raise ValueError(NOT_OWN_VARIABLE)
    return name


class Toleration(Section):
    """Lets pods run on nodes with a taint."""

    key: LabelKey | None = None
    """The taint's key. Unset, with operator Exists: every taint."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """`Equal` compares the value, `Exists` doesn't."""
    value: LabelValue | None = None
    """The taint's value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect. Unset: every effect."""
    toleration_seconds: int | None = Field(default=None, ge=0, le=2**31 - 1)
    """How long a NoExecute taint is tolerated. Unset: for ever."""

    @model_validator(mode="after")
    def _compares_what_it_has(self) -> Self:
        if self.operator == "Exists" and self.value:
            raise ValueError(VALUE_IS_NOT_READ)
        if self.operator == "Equal" and not self.key:
            raise ValueError(KEY_OR_EXISTS)
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError(SECONDS_OF_NO_EXECUTE)
        return self


class TopologySpread(Section):
    """Spreads the pods of one role over zones, racks or nodes."""

    topology_key: LabelKey
    """The node label that tells the parts apart."""
    max_skew: int = Field(default=1, ge=1, le=1024)
    """Most that two parts may differ in pods."""
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = "ScheduleAnyway"
    """Whether a pod that would break it waits or starts all the same."""


class SecretOrConfigKey(Section):
    """One key of a Secret or of a ConfigMap in the job's namespace."""

    name: ObjectName
    """Name of the Secret or ConfigMap."""
    key: DataKey
    """The key in it."""


class EnvironmentVariable(Section):
    """An environment variable. Exactly one of `value`, `secret` and `configMap`."""

    name: Annotated[VariableName, AfterValidator(_not_own_variable)]
    """Its name. Names that begin with DISTILL_ are the operator's own."""
    value: str | None = Field(default=None, max_length=8192)
    """Its value."""
    secret: SecretOrConfigKey | None = None
    """The Secret's key that holds the value."""
    config_map: SecretOrConfigKey | None = None
    """The ConfigMap's key that holds the value."""

    @model_validator(mode="after")
    def _one_value(self) -> Self:
        if sum(source is not None for source in (self.value, self.secret, self.config_map)) != 1:
            raise ValueError(ONE_VALUE)
        return self


class Pods(Section):
    """The pods of one role. Unset fields have the operator's configured defaults; lists and maps are added to them."""

    node_selector: dict[LabelKey, LabelValue] = Field(default={}, max_length=32)
    """Labels that a node must have: the role's node pool."""
    tolerations: list[Toleration] = Field(default=[], max_length=32)
    """Taints that the pods tolerate."""
    affinity: Affinity | None = None
    """`nodeAffinity`, `podAffinity` and `podAntiAffinity` as in a pod; replaces the configured default."""
    topology_spread: list[TopologySpread] = Field(default=[], max_length=8)
    """How the pods are spread."""
    accelerator: LabelKey | None = None
    """Name of the GPU resource. Unset: the operator's default, `nvidia.com/gpu` unless configured."""
    cpu: Quantity | None = None
    """Processor cores, requested."""
    cpu_limit: Quantity | None = None
    """Most processor cores. Unset: no limit."""
    memory: Quantity | None = None
    """Memory, requested and limited. It includes what is written to /dev/shm."""
    ephemeral_storage: Quantity | None = None
    """Disk of the node, requested and limited."""
    extra_resources: dict[LabelKey, Quantity] = Field(default={}, max_length=16)
    """Other resources, requested and limited: `rdma/hca: 1`."""
    shared_memory: Quantity | None = None
    """Size of /dev/shm. Unset: 8Gi for each GPU, at least 1Gi."""
    model_cache: ModelCache | None = None
    """Where models are kept between starts."""
    startup_seconds: int | None = Field(default=None, ge=10, le=86400)
    """Longest time that a container may take to load its model before it is started again. Unset: 3600."""
    environment: list[EnvironmentVariable] = Field(default=[], max_length=64)
    """Environment variables."""
    volumes: list[Volume] = Field(default=[], max_length=16)
    """Volumes."""
    labels: dict[LabelKey, LabelValue] = Field(default={}, max_length=32)
    """Labels of the pods; the operator's own win."""
    annotations: dict[LabelKey, Annotated[str, StringConstraints(max_length=8192)]] = Field(default={}, max_length=32)
    """Annotations of the pods; the operator's own win."""
    service_account: ObjectName | None = None
    """Service account. Its token is not mounted."""
    image_pull_secrets: list[ObjectName] = Field(default=[], max_length=8)
    """Secrets for pulling the image."""
    image: str | None = Field(default=None, min_length=1, max_length=1024)
    """Runtime image. Unset: the operator's."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """When the image is pulled."""
    priority_class: ObjectName | None = None
    """Priority class."""
    runtime_class: ObjectName | None = None
    """Runtime class, for instance `nvidia`."""
    scheduler: str | None = Field(default=None, min_length=1, max_length=63)
    """Name of the scheduler."""
    network_interface: str | None = Field(default=None, min_length=1, max_length=256)
    """Interfaces for NCCL and gloo: `eth0`, or NCCL's own notation (`^lo,docker0`)."""
    nccl_debug: Literal["VERSION", "WARN", "INFO", "TRACE"] | None = None
    """How much NCCL writes to the log."""

    @model_validator(mode="after")
    def _amounts_fit(self) -> Self:
        if any(name in self.extra_resources for name in OWN_RESOURCES):
            raise ValueError(RESOURCES_WITH_FIELDS)
        if any(amount(quantity) % 1 for quantity in self.extra_resources.values()):
            raise ValueError(WHOLE_RESOURCES)
        if _more(self.cpu, self.cpu_limit):
            raise ValueError(CPU_IN_LIMIT)
        if _more(self.shared_memory, self.memory):
            raise ValueError(SHARED_MEMORY_IN_MEMORY)
        return self

    @model_validator(mode="after")
    def _entries_differ(self) -> Self:
        if _repeats(variable.name for variable in self.environment):
            raise ValueError(VARIABLES_DIFFER)
        if _repeats(volume.name for volume in self.volumes):
            raise ValueError(VOLUMES_DIFFER)
        if _repeats(volume.mount_path for volume in self.volumes):
            raise ValueError(MOUNTS_DIFFER)
        if _repeats((spread.topology_key, spread.when_unsatisfiable) for spread in self.topology_spread):
            raise ValueError(SPREADS_DIFFER)
        return self


def _more(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and amount(one) > amount(other)


def _repeats(keys: Iterable[Hashable]) -> bool:
    seen = list(keys)
    return len(set(seen)) != len(seen)


class RolePods(Section):
    """The pods of each role: node pools, resources, environment, volumes."""

    prepare: Pods = Pods()
    """Pods that tokenise the data; they need no GPU."""
    teacher: Pods = Pods()
    """The teacher's pool."""
    student: Pods = Pods()
    """The student's pool."""
    evaluate: Pods = Pods()
    """Pods that score the student. Unset fields are the student's."""
