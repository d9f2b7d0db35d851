"""Environment variables of a container: folders and threads, the store's credentials and network interfaces, the user's
own, the job's place (`DISTILL_…`). Each name occurs once; what comes later wins.
"""

from collections.abc import Iterable, Mapping

from distill_operator.api.pods import EnvironmentVariable, Pods
from distill_operator.constants import PROGRESS_PORT, RUN_CONFIG_KEY
from distill_operator.render.manifest import Manifest
from distill_operator.render.role import RoleInAttempt
from distill_operator.render.volumes import (
    CACHE_FOLDER,
    CONFIG_FOLDER,
    SCRATCH_FOLDER,
    STATE_FOLDER,
    cache_is_shared,
)
from distill_runtime.contract import environment

TERMINATION_LOG = "/dev/termination-log"
"""Where the kubelet reads a container's last word."""
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
"""Keys that the Secret of the store must have."""
OPTIONAL_CREDENTIALS = ("AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION")
"""Keys that it may have."""


def variables(role: RoleInAttempt, own: Iterable[Manifest] = ()) -> list[Manifest]:
    """All variables of a container; `own` are those that only its role has."""
    return _each_once(
        [
            *values(_folders(role)),
            *_devices(role),
            *_credentials(role.job.spec.storage.secret_name),
            *values(_network(role.pods)),
            *map(_users, role.pods.environment),
            *values(_place(role)),
            *own,
        ]
    )


def values(named: Mapping[str, str]) -> list[Manifest]:
    """Variables with a plain value."""
    return [{"name": name, "value": value} for name, value in named.items()]


def from_field(name: str, path: str) -> Manifest:
    """A variable whose value is a field of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _each_once(entries: Iterable[Manifest]) -> list[Manifest]:
    """The last entry of each name, at its own place: `$(NAME)` refers to what stands before."""
    by_name: dict[str, Manifest] = {}
    for entry in entries:
        by_name.pop(entry["name"], None)
        by_name[entry["name"]] = entry
    return list(by_name.values())


def _folders(role: RoleInAttempt) -> dict[str, str]:
    # Compilers of several pods that write to one network volume at once trip over each other's files.
    kernels = f"{SCRATCH_FOLDER if cache_is_shared(role) else CACHE_FOLDER}/kernels"
    return {
        "HOME": SCRATCH_FOLDER,
        "XDG_CACHE_HOME": f"{SCRATCH_FOLDER}/.cache",
        "HF_HOME": f"{CACHE_FOLDER}/huggingface",
        "VLLM_CACHE_ROOT": f"{kernels}/vllm",
        "TRITON_CACHE_DIR": f"{kernels}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{kernels}/inductor",
        "TORCH_EXTENSIONS_DIR": f"{kernels}/extensions",
        "CUDA_CACHE_PATH": f"{kernels}/cuda",
        "FLASHINFER_WORKSPACE_BASE": f"{kernels}/flashinfer",
    }


def _devices(role: RoleInAttempt) -> list[Manifest]:
    """Without a GPU: none of the node's is seen, and there are as many threads as cores were asked for."""
    if role.gpus:
        return []
    # The NVIDIA runtime shows all GPUs to containers whose image asks for them, whoever was given which.
    hidden: Manifest = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
    if role.pods.cpu_limit:
        return [hidden, _threads("limits.cpu")]
    return [hidden, _threads("requests.cpu")] if role.pods.cpu else [hidden]


def _threads(resource: str) -> Manifest:
    # By default there are as many as the node has cores: they would wait for each other's share of time.
    return {"name": "OMP_NUM_THREADS", "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": "1"}}}


def _credentials(secret: str | None) -> list[Manifest]:
    if secret is None:
        return []
    return [
        *(_from_secret(key, {"name": secret, "key": key}) for key in CREDENTIALS),
        *(_from_secret(key, {"name": secret, "key": key, "optional": True}) for key in OPTIONAL_CREDENTIALS),
    ]


def _from_secret(name: str, reference: Manifest) -> Manifest:
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def _network(pods: Pods) -> dict[str, str]:
    found: dict[str, str] = {}
    if pods.network_interface:
        found["NCCL_SOCKET_IFNAME"] = pods.network_interface
        # gloo knows names only, not NCCL's "all but" (^); NCCL's "exactly" (=) is what gloo always means.
        if not pods.network_interface.startswith("^"):
            found["GLOO_SOCKET_IFNAME"] = pods.network_interface.removeprefix("=")
    if pods.nccl_debug:
        found["NCCL_DEBUG"] = pods.nccl_debug
    return found


def _users(variable: EnvironmentVariable) -> Manifest:
    if variable.secret is not None:
        return _from_secret(variable.name, {"name": variable.secret.name, "key": variable.secret.key})
    if variable.config_map is not None:
        reference = {"name": variable.config_map.name, "key": variable.config_map.key}
        return {"name": variable.name, "valueFrom": {"configMapKeyRef": reference}}
    return {"name": variable.name, "value": variable.value or ""}


def _place(role: RoleInAttempt) -> dict[str, str]:
    return {
        environment.RUN_CONFIG: f"{CONFIG_FOLDER}/{RUN_CONFIG_KEY}",
        environment.STATE_DIR: STATE_FOLDER,
        environment.CACHE_DIR: CACHE_FOLDER,
        environment.TERMINATION_LOG: TERMINATION_LOG,
        environment.LOG_FORMAT: "json",
        environment.GRACE_SECONDS: str(role.job.spec.policy.checkpoint_grace_seconds),
        environment.PROGRESS_PORT: str(PROGRESS_PORT),
    }
