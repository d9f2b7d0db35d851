"""The pod template: what the pods of all roles have in common."""

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from distill_operator.constants import PROGRESS_PORT, PROGRESS_PORT_NAME
from distill_operator.render.containers import supervisor_command
from distill_operator.render.manifest import Manifest, labels
from distill_operator.render.placement import placement
from distill_operator.render.resources import resources
from distill_operator.render.role import RoleInAttempt
from distill_operator.render.variables import variables
from distill_operator.render.volumes import volume_mounts, volumes

USER = 65532
"""User and group of the images, and of files on the pods' volumes."""
GRACE_MARGIN_SECONDS = 30
"""What a supervisor gets beside the grace to end what didn't end in it, and to say so, before it is killed itself."""
STARTUP_PERIOD_SECONDS = 10

DO_NOT_DISRUPT = {
    "karpenter.sh/do-not-disrupt": "true",
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
}
"""Keeps autoscalers from emptying the node: a student that moves costs all workers the steps since the checkpoint."""


def pod_template(
    role: RoleInAttempt,
    *,
    restart: Literal["Always", "Never"],
    own_variables: Iterable[Manifest] = (),
    own_ports: Iterable[Manifest] = (),
    probes: Manifest | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """The pods of a role. `annotations` are defaults that the user's replace; our labels replace his."""
    pods = role.pods
    all_annotations = {**(annotations or {}), **pods.annotations}
    return {
        "metadata": {
            "labels": {**pods.labels, **labels(role.job, role.attempt, role=role.role)},
            **({"annotations": all_annotations} if all_annotations else {}),
        },
        "spec": {
            "restartPolicy": restart,
            "terminationGracePeriodSeconds": role.job.spec.policy.checkpoint_grace_seconds + GRACE_MARGIN_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            # The kernel drops a SIGTERM to a process 1 that is just starting: the pod would stay for its whole grace.
            "shareProcessNamespace": True,
            **({"serviceAccountName": pods.service_account} if pods.service_account else {}),
            **(
                {"imagePullSecrets": [{"name": name} for name in pods.image_pull_secrets]}
                if pods.image_pull_secrets
                else {}
            ),
            "securityContext": _pod_security(),
            **placement(role),
            "containers": [_container(role, own_variables, own_ports, probes or {})],
            "volumes": volumes(role),
        },
    }


def serving_probes(role: RoleInAttempt, *, ready: Literal["/startup", "/healthz"]) -> Manifest:
    """Probes of a container that serves until it is told to end.

    A model may load for as long as `startupSeconds` says. Afterwards only a supervisor that is silent for minutes is
    started again: a hung role is the operator's stall rule's business, which sees steps and not sockets.
    """
    budget = math.ceil((role.pods.startup_seconds or 0) / STARTUP_PERIOD_SECONDS)
    return {
        "startupProbe": _probe("/startup", period=STARTUP_PERIOD_SECONDS, timeout=5, failures=max(1, budget)),
        "livenessProbe": _probe("/healthz", period=20, timeout=10, failures=15),
        "readinessProbe": _probe(ready, period=10, timeout=5, failures=3),
    }


def _probe(path: str, *, period: int, timeout: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": PROGRESS_PORT_NAME},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def _container(
    role: RoleInAttempt, own_variables: Iterable[Manifest], own_ports: Iterable[Manifest], probes: Manifest
) -> Manifest:
    needs = resources(role)
    return {
        "name": role.role,
        "image": role.pods.image,
        "imagePullPolicy": role.pods.image_pull_policy,
        "command": supervisor_command(role.role),
        "env": variables(role, own_variables),
        "ports": [
            {"name": PROGRESS_PORT_NAME, "containerPort": PROGRESS_PORT, "protocol": "TCP"},
            *own_ports,
        ],
        **({"resources": needs} if needs else {}),
        **probes,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": volume_mounts(role),
    }


def _pod_security() -> Manifest:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        # A cache of many files on a claim would be walked at each start.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
