"""Where the pods of a role run: node pool, tolerations, spread, scheduler."""

from distill_operator.api.affinity import Affinity
from distill_operator.api.pods import Pods, Toleration
from distill_operator.render.manifest import Manifest, selector
from distill_operator.render.role import RoleInAttempt

LOST_NODE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def placement(role: RoleInAttempt) -> Manifest:
    """The fields of the pod's spec that the scheduler reads."""
    pods = role.pods
    return {
        **({"nodeSelector": pods.node_selector} if pods.node_selector else {}),
        "tolerations": [*map(_toleration, pods.tolerations), *_lost_node(role.job.spec.policy.node_lost_seconds)],
        **({"affinity": _affinity(pods.affinity)} if pods.affinity else {}),
        **({"topologySpreadConstraints": _spread(role)} if pods.topology_spread else {}),
        **_named_classes(pods),
    }


def _named_classes(pods: Pods) -> Manifest:
    named = {
        "priorityClassName": pods.priority_class,
        "runtimeClassName": pods.runtime_class,
        "schedulerName": pods.scheduler,
    }
    return {field: name for field, name in named.items() if name}


def _toleration(toleration: Toleration) -> Manifest:
    return toleration.model_dump(by_alias=True, exclude_none=True)


def _affinity(affinity: Affinity) -> Manifest:
    return affinity.model_dump(by_alias=True, exclude_defaults=True)


def _lost_node(seconds: int) -> list[Manifest]:
    """How long pods stay on a node that doesn't answer; Kubernetes' own default is 300 s."""
    return [
        {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
        for taint in LOST_NODE_TAINTS
    ]


def _spread(role: RoleInAttempt) -> list[Manifest]:
    return [
        {
            "topologyKey": spread.topology_key,
            "maxSkew": spread.max_skew,
            "whenUnsatisfiable": spread.when_unsatisfiable,
            "labelSelector": {"matchLabels": selector(role.job, role.role)},
        }
        for spread in role.pods.topology_spread
    ]
