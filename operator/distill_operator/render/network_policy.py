"""Who may reach a job's pods. What they reach is left open: stores, hubs and proxies are not known here.

- Pods of the same job: every port (NCCL and gloo choose theirs).
- The operator: the progress port. So may pods of the configured namespaces, where metrics scrapers are.

Probes need no rule: a node may always reach its own pods.
"""

from distill_operator.api import DistillJob
from distill_operator.configuration import OperatorConfiguration
from distill_operator.constants import PROGRESS_PORT
from distill_operator.render.manifest import Manifest, child_manifest, selector

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""Label that Kubernetes itself gives each namespace."""


def network_policy(job: DistillJob, configuration: OperatorConfiguration, attempt: int) -> Manifest:
    """The policy of all pods of the job."""
    operator: Manifest = {
        **_namespace(configuration.operator_namespace),
        "podSelector": {"matchLabels": configuration.operator_labels},
    }
    scrapers = [_namespace(namespace) for namespace in configuration.metrics_namespaces]
    progress = [{"port": PROGRESS_PORT, "protocol": "TCP"}]
    return {
        **child_manifest("networkPolicy", job, attempt),
        "spec": {
            "podSelector": {"matchLabels": selector(job)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": {"matchLabels": selector(job)}}]},
                {"from": [operator, *scrapers], "ports": progress},
            ],
        },
    }


def _namespace(name: str) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: name}}}
