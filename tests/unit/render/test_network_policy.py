"""Who may reach a job's pods."""

from typing import Any

from distill_operator.configuration import OperatorConfiguration
from distill_operator.render import render_attempt
from tests.unit.render.golden import job_named


def ingress(**configuration: Any) -> list[dict[str, Any]]:
    rendered = render_attempt(job_named("minimal"), OperatorConfiguration(**configuration), 1)
    spec = rendered.children["networkPolicy"]["spec"]
    assert spec["policyTypes"] == ["Ingress"]
    assert spec["podSelector"] == {"matchLabels": {"distill-operator.io/job": "qwen3-4b"}}
    return spec["ingress"]


def test_pods_of_a_job_reach_each_other_at_every_port() -> None:
    own, _ = ingress()
    assert own == {"from": [{"podSelector": {"matchLabels": {"distill-operator.io/job": "qwen3-4b"}}}]}


def test_the_operator_and_it_alone_reads_progress() -> None:
    _, progress = ingress(operator_namespace="operators", operator_labels={"app": "operator"})
    assert progress["ports"] == [{"port": 8090, "protocol": "TCP"}]
    # One entry with both: pods with these labels, in this namespace.
    assert progress["from"] == [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "operators"}},
            "podSelector": {"matchLabels": {"app": "operator"}},
        }
    ]


def test_metrics_are_read_from_the_configured_namespaces() -> None:
    _, progress = ingress(metrics_namespaces=["monitoring"])
    assert progress["from"][1:] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    ]
