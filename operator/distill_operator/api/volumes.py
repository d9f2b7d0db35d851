"""Volumes that a user brings along, and the cache of models."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from distill_operator.api.names import AbsolutePath, ObjectName, RelativePath, VolumeName
from distill_operator.api.quantities import Quantity
from distill_runtime.contract.sections import Section

OWN_FOLDERS = ("/cache", "/dev/shm", "/etc/distill", "/mnt/claims", "/state", "/tmp")
"""Where the operator mounts its own volumes."""
OWN_PREFIX = "distill-"
"""How the names of the operator's own volumes begin."""
NOT_OWN_FOLDER = f"must not be, lie in or lie above one of the operator's own folders: {', '.join(OWN_FOLDERS)}"
NOT_OWN_VOLUME = f"must not begin with {OWN_PREFIX}: such names are the operator's own"
ONE_SOURCE = "give exactly one of claim, secret, configMap, emptyDir and image"
ONE_CACHE = "give at most one of claim, perPod and emptyDir"
CLASS_OF_CLAIMS = "storageClass needs perPod"


def _not_own_folder(path: str) -> str:
    for folder in OWN_FOLDERS:
        if f"{path}/".startswith(f"{folder}/") or folder.startswith(f"{path}/"):
            raise ValueError(NOT_OWN_FOLDER)
    return path


def _not_own_volume(name: str) -> str:
    if name.startswith(OWN_PREFIX):
        raise ValueError(NOT_OWN_VOLUME)
    return name


class Volume(Section):
    """A volume that is mounted into the pods of a role. Exactly one of `claim`, `secret`, `configMap`, `emptyDir` and
    `image`."""

    name: Annotated[VolumeName, AfterValidator(_not_own_volume)]
    """Its name, unique within the role."""
    mount_path: Annotated[AbsolutePath, AfterValidator(_not_own_folder)]
    """Where it is mounted."""
    sub_path: RelativePath | None = None
    """The folder of the volume that is mounted. Unset: all of it."""
    read_only: bool = False
    """Whether pods may only read it."""
    claim: ObjectName | None = None
    """A PersistentVolumeClaim of the job's namespace."""
    secret: ObjectName | None = None
    """A Secret of the job's namespace."""
    config_map: ObjectName | None = None
    """A ConfigMap of the job's namespace."""
    empty_dir: Quantity | None = None
    """An empty folder of at most this size."""
    image: str | None = Field(default=None, min_length=1, max_length=1024)
    """A container image (or model artifact of a registry) that is mounted read-only. Kubernetes 1.34 takes it only with
    its feature gate `ImageVolume`."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = (self.claim, self.secret, self.config_map, self.empty_dir, self.image)
        if sum(source is not None for source in sources) != 1:
            raise ValueError(ONE_SOURCE)
        return self


class ModelCache(Section):
    """Where downloaded models, compiled kernels and signals are kept between the containers' starts. At most one of
    `claim`, `perPod` and `emptyDir`; an emptyDir of 100Gi if none is given."""

    claim: ObjectName | None = None
    """A claim of the job's namespace that all pods of the role share; it must be ReadWriteMany."""
    per_pod: Quantity | None = None
    """A new claim of this size for each pod. A student worker's is kept for the next attempt and deleted with the job;
    those of other pods go with their pod."""
    storage_class: ObjectName | None = None
    """Storage class of `perPod` claims. Unset: the cluster's default."""
    empty_dir: Quantity | None = None
    """A folder of at most this size that goes with the pod."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.claim, self.per_pod, self.empty_dir)) > 1:
            raise ValueError(ONE_CACHE)
        if self.storage_class is not None and self.per_pod is None:
            raise ValueError(CLASS_OF_CLAIMS)
        return self
