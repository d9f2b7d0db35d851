"""Volumes of a pod and where they are mounted. The root file system is read-only: whatever is written goes here.

| folder | what | lost with |
| --- | --- | --- |
| `/etc/distill` | the run configuration, from the attempt's ConfigMap | |
| `/state` | marker of an earlier start, progress, last word | the pod, not the container |
| `/cache` | the model cache: downloads, signals, compiled kernels | as `modelCache` says |
| `/tmp` | HOME and temporary files; compiled kernels where `/cache` is shared by pods | the pod |
| `/dev/shm` | shared memory; counts as the container's memory | the pod |
| `/mnt/claims/NAME` | claims of `pvc://` URIs, read-only | |
"""

from distill_operator.api.volumes import OWN_PREFIX, ModelCache, Volume
from distill_operator.constants import RUN_CONFIG_KEY
from distill_operator.render.claims import claims_of
from distill_operator.render.manifest import Manifest
from distill_operator.render.names import name_of
from distill_operator.render.resources import shared_memory
from distill_operator.render.role import RoleInAttempt
from distill_runtime.contract import environment

CONFIG_FOLDER = "/etc/distill"
STATE_FOLDER = "/state"
CACHE_FOLDER = "/cache"
SCRATCH_FOLDER = "/tmp"
SHARED_MEMORY_FOLDER = "/dev/shm"

STATE_SIZE = "256Mi"
SCRATCH_SIZE = "32Gi"
"""HOME and temporary files: the teacher's output head on its way, answers of a task, kernels while they compile."""
CACHE_SIZE = "100Gi"
"""Size of a cache that is an emptyDir of no stated size."""

CACHE_VOLUME = f"{OWN_PREFIX}cache"


def volumes(role: RoleInAttempt) -> list[Manifest]:
    """The pod's volumes, but for a claim that the StatefulSet adds to each worker."""
    config = name_of("configMap", role.job.metadata.name, role.attempt).name
    only_run_config = [{"key": RUN_CONFIG_KEY, "path": RUN_CONFIG_KEY}]
    return [
        {"name": f"{OWN_PREFIX}config", "configMap": {"name": config, "items": only_run_config}},
        {"name": f"{OWN_PREFIX}state", "emptyDir": {"sizeLimit": STATE_SIZE}},
        {"name": f"{OWN_PREFIX}scratch", "emptyDir": {"sizeLimit": SCRATCH_SIZE}},
        {"name": f"{OWN_PREFIX}shm", "emptyDir": {"medium": "Memory", "sizeLimit": shared_memory(role)}},
        *([] if claim_of_each_worker(role) else [{"name": CACHE_VOLUME, **_cache(_model_cache(role))}]),
        *(
            {"name": f"{OWN_PREFIX}claim-{number}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
            for number, claim in enumerate(claims_of(role))
        ),
        *({"name": volume.name, **_source(volume)} for volume in role.pods.volumes),
    ]


def volume_mounts(role: RoleInAttempt) -> list[Manifest]:
    """Where the container finds them."""
    return [
        {"name": f"{OWN_PREFIX}config", "mountPath": CONFIG_FOLDER, "readOnly": True},
        {"name": f"{OWN_PREFIX}state", "mountPath": STATE_FOLDER},
        {"name": f"{OWN_PREFIX}scratch", "mountPath": SCRATCH_FOLDER},
        {"name": f"{OWN_PREFIX}shm", "mountPath": SHARED_MEMORY_FOLDER},
        {"name": CACHE_VOLUME, "mountPath": CACHE_FOLDER},
        *(
            {
                "name": f"{OWN_PREFIX}claim-{number}",
                "mountPath": f"{environment.CLAIMS_FOLDER}/{claim}",
                "readOnly": True,
            }
            for number, claim in enumerate(claims_of(role))
        ),
        *(_mount(volume) for volume in role.pods.volumes),
    ]


def claim_templates(role: RoleInAttempt) -> list[Manifest]:
    """`volumeClaimTemplates` of the student's StatefulSet: one claim for the cache of each worker, or none."""
    if not claim_of_each_worker(role):
        return []
    return [{"metadata": {"name": CACHE_VOLUME}, "spec": _claim_spec(_model_cache(role))}]


def claim_of_each_worker(role: RoleInAttempt) -> bool:
    """Whether each worker has a claim that outlives its pod: only a StatefulSet can give it the same one again."""
    return role.role == "student" and _model_cache(role).per_pod is not None


def cache_is_shared(role: RoleInAttempt) -> bool:
    """Whether other pods write to the same cache."""
    return _model_cache(role).claim is not None


def _model_cache(role: RoleInAttempt) -> ModelCache:
    return role.pods.model_cache or ModelCache(empty_dir=CACHE_SIZE)


def _cache(cache: ModelCache) -> Manifest:
    if cache.claim is not None:
        return {"persistentVolumeClaim": {"claimName": cache.claim}}
    if cache.per_pod is not None:
        return {"ephemeral": {"volumeClaimTemplate": {"spec": _claim_spec(cache)}}}
    return {"emptyDir": {"sizeLimit": cache.empty_dir or CACHE_SIZE}}


def _claim_spec(cache: ModelCache) -> Manifest:
    return {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": cache.per_pod}},
        **({"storageClassName": cache.storage_class} if cache.storage_class else {}),
    }


def _source(volume: Volume) -> Manifest:
    if volume.claim is not None:
        claim: Manifest = {"claimName": volume.claim}
        return {"persistentVolumeClaim": {**claim, "readOnly": True} if volume.read_only else claim}
    if volume.secret is not None:
        return {"secret": {"secretName": volume.secret}}
    if volume.config_map is not None:
        return {"configMap": {"name": volume.config_map}}
    if volume.image is not None:
        return {"image": {"reference": volume.image}}
    return {"emptyDir": {"sizeLimit": volume.empty_dir} if volume.empty_dir else {}}


def _mount(volume: Volume) -> Manifest:
    return {
        "name": volume.name,
        "mountPath": volume.mount_path,
        **({"subPath": volume.sub_path} if volume.sub_path else {}),
        **({"readOnly": True} if volume.read_only or volume.image is not None else {}),
    }
