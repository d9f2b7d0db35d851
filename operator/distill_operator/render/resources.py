"""What a container asks for, and the size of its shared memory. What isn't set isn't asked for."""

from distill_operator.render.manifest import Manifest
from distill_operator.render.role import RoleInAttempt

SHARED_MEMORY_GIB_PER_GPU = 8
"""NCCL and the engines' worker processes exchange data in /dev/shm; the container runtime's own 64 MiB break both."""


def resources(role: RoleInAttempt) -> Manifest:
    """`resources` of the container. GPUs, memory and disk are limits as well as requests; processor cores need not be.

    Memory includes what is written to /dev/shm, so it is not added to it.
    """
    pods = role.pods
    both = {
        **({"memory": pods.memory} if pods.memory else {}),
        **({"ephemeral-storage": pods.ephemeral_storage} if pods.ephemeral_storage else {}),
        **({pods.accelerator: str(role.gpus)} if pods.accelerator and role.gpus else {}),
        **pods.extra_resources,
    }
    requests = {**({"cpu": pods.cpu} if pods.cpu else {}), **both}
    limits = {**({"cpu": pods.cpu_limit} if pods.cpu_limit else {}), **both}
    return {**({"requests": requests} if requests else {}), **({"limits": limits} if limits else {})}


def shared_memory(role: RoleInAttempt) -> str:
    """Size of /dev/shm."""
    return role.pods.shared_memory or f"{max(1, SHARED_MEMORY_GIB_PER_GPU * role.gpus)}Gi"
