"""The CustomResourceDefinition, written from the types.

`python -m distill_operator.api.crd FILE [--chart FILE]`: the plain manifest, and the same as a template of the chart.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from distill_operator.api.job import KIND, JobSpec
from distill_operator.api.rules import root_rules
from distill_operator.api.status import DistillJobStatus
from distill_operator.api.structural import VALIDATIONS, structural_schema
from distill_operator.constants import GROUP, PLURAL, VERSION

SHORT_NAME = "dj"
"""`kubectl get dj`."""
CATEGORY = "distill"
"""`kubectl get distill`: all kinds of this group."""
NAME = f"{PLURAL}.{GROUP}"
"""Name of the definition."""

HEADER = "# Written from the types by `make generate`; don't edit it.\n"

_CHART_HEAD = "{{- if .Values.crd.install }}\n"
_CHART_METADATA = """\
  labels:
    {{- include "distill-operator.labels" . | nindent 4 }}
  {{- $keep := ternary (dict "helm.sh/resource-policy" "keep") dict .Values.crd.keep }}
  {{- include "distill-operator.annotations" (dict "root" . "annotations" $keep) | nindent 2 }}
"""
_CHART_END = "{{- end }}\n"

COLUMNS: tuple[dict[str, Any], ...] = (
    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
    {"name": "Step", "type": "string", "jsonPath": ".status.progress.text"},
    {"name": "Progress", "type": "string", "jsonPath": ".status.progress.percentText"},
    {"name": "Loss", "type": "string", "jsonPath": ".status.progress.loss"},
    {"name": "Teacher", "type": "string", "jsonPath": ".status.teacher.text"},
    {"name": "Student", "type": "string", "jsonPath": ".status.student.text"},
    {"name": "Reason", "type": "string", "jsonPath": ".status.reason", "priority": 1},
    {"name": "Attempt", "type": "integer", "jsonPath": ".status.attempt.number", "priority": 1},
    {"name": "Failed", "type": "integer", "jsonPath": ".status.attempts.failed", "priority": 1},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
)
"""What `kubectl get` shows; those of priority 1 with `-o wide` only."""


def custom_resource_definition() -> dict[str, Any]:
    """The definition as plain data."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": [SHORT_NAME],
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _schema()},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": list(COLUMNS),
                    "selectableFields": [{"jsonPath": ".status.phase"}],
                }
            ],
        },
    }


def _schema() -> dict[str, Any]:
    return {
        "description": "Distils a teacher model into a student model.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Group and version of the resource."},
            "kind": {"type": "string", "description": "Kind of the resource."},
            # Only declared so that a rule can name it.
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": structural_schema(JobSpec),
            "status": structural_schema(DistillJobStatus, defaults=False),
        },
        VALIDATIONS: [rule.manifest() for rule in root_rules()],
    }


def plain_manifest() -> str:
    """For `kubectl apply`."""
    return HEADER + _yaml(custom_resource_definition())


def chart_template() -> str:
    """For the chart: may be left out (`crd.install`), and is kept when the release goes (`crd.keep`)."""
    definition = custom_resource_definition()
    spec = _yaml({"spec": definition.pop("spec")}).replace("{{", '{{ "{{" }}')
    return f"{HEADER}{_CHART_HEAD}{_yaml(definition)}{_CHART_METADATA}{spec}{_CHART_END}"


def _yaml(data: dict[str, Any]) -> str:
    return yaml.safe_dump(data, sort_keys=False, width=120, allow_unicode=True)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plain", type=Path)
    parser.add_argument("--chart", type=Path)
    arguments = parser.parse_args()
    _write(arguments.plain, plain_manifest())
    if arguments.chart:
        _write(arguments.chart, chart_template())
