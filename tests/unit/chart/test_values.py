"""values.yaml, its schema, and the files that are rendered from both."""

import json
import re
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_operator.configuration import OperatorConfiguration, load_configuration
from distill_operator.configuration_schema import with_configuration_schema
from distill_operator.constants import METRICS_PORT, PROBE_PORT, PROGRESS_PORT
from tests.unit.chart.grants import documented_grants, grants
from tests.unit.chart.renderings import CHART, DEPLOY, GOLDEN, ROOT, VALUES, Manifest, configuration

FREE = {
    "commonAnnotations",
    "commonLabels",
    "metrics.podMonitor.labels",
    "metrics.service.annotations",
    "metrics.serviceMonitor.labels",
    "nodeSelector",
    "podAnnotations",
    "podLabels",
    "podSecurityContext",
    "resources.limits",
    "resources.requests",
    "securityContext",
    "serviceAccount.annotations",
}
"""Values whose keys are the user's own, or those of a type of Kubernetes."""
OF_TYPES = {"affinity", "pods.prepare", "pods.teacher", "pods.student", "pods.evaluate"}
"""Empty values whose fields the schema knows."""
VALUES_FILE = CHART / "values.yaml"
SCHEMA_FILE = CHART / "values.schema.json"
SET_BY_CHART_ALONE = {"operatorNamespace", "namespaces", "metricsPort", "probePort", "progressPort"}
"""Fields of the configuration that no value changes, or that only the rendering `namespaces` sets."""

Schema = dict[str, Any]


def golden(name: str) -> list[Manifest]:
    return list(yaml.safe_load_all((GOLDEN / f"{name}.yaml").read_text()))


def loaded(text: str, folder: Path) -> OperatorConfiguration:
    file = folder / "configuration.yaml"
    file.write_text(text)
    return load_configuration(file)


def fields(values: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths of all fields of values.yaml."""
    for key, value in values.items():
        here = f"{path}{key}"
        yield here
        if isinstance(value, dict) and here not in FREE:
            yield from fields(value, f"{here}.")


def known_fields(schema: Schema, root: Schema, path: str = "") -> Iterator[str]:
    """Paths of all fields of the schema, down to the types of the operator."""
    for key, field in schema.get("properties", {}).items():
        here = f"{path}{key}"
        if here == "global":
            continue
        yield here
        if here not in FREE | OF_TYPES:
            yield from known_fields(resolved(field, root), root, f"{here}.")


def resolved(schema: Schema, root: Schema) -> Schema:
    if "$ref" not in schema:
        return schema
    target: Any = root
    for part in schema["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return resolved(target, root)


def default_values() -> dict[str, Any]:
    return yaml.safe_load(VALUES_FILE.read_text())


def values_schema() -> Schema:
    return json.loads(SCHEMA_FILE.read_text())


def at(values: dict[str, Any], path: str) -> Any:
    found: Any = values
    for key in path.split("."):
        found = found[key]
    return found


def test_values_and_schema_know_the_same_fields() -> None:
    schema = values_schema()
    assert set(fields(default_values())) == set(known_fields(schema, schema))


@pytest.mark.parametrize("path", sorted(set(fields(default_values())) - FREE - OF_TYPES))
def test_the_schema_refuses_fields_that_it_does_not_know(path: str) -> None:
    root = values_schema()
    schema = root
    for key in path.split("."):
        schema = resolved(schema["properties"][key], root)
    if "properties" in schema:
        assert schema["additionalProperties"] is False


def test_the_schema_knows_the_configuration_as_the_operator_does() -> None:
    text = SCHEMA_FILE.read_text()
    assert with_configuration_schema(text) == text, "run `make generate`"


def test_every_value_is_described() -> None:
    lines = VALUES_FILE.read_text().splitlines()
    undescribed = [
        line
        for before, line in pairwise(lines)
        if re.match(r" *[a-zA-Z]+:", line) and not before.lstrip().startswith("#")
    ]
    # Objects of Kubernetes' own types are described as a whole.
    assert not [line for line in undescribed if not in_free_field(line)]


def in_free_field(line: str) -> bool:
    own = {key for path in FREE | {"resources"} for key in (at(default_values(), path) or {})}
    return line.split(":")[0].strip() in own


def test_everything_sets_every_value_to_another_than_its_default() -> None:
    everything = yaml.safe_load((VALUES["everything"] or Path()).read_text())
    assert set(fields(everything)) >= set(fields(default_values()))
    # What is more is below the fields that are empty by default.
    assert all(
        path.startswith(("pods.", "affinity.")) for path in set(fields(everything)) - set(fields(default_values()))
    )


@pytest.mark.parametrize("name", VALUES)
def test_the_operator_reads_the_configuration_that_the_chart_renders(name: str, tmp_path: Path) -> None:
    read = loaded(configuration(golden(name)), tmp_path)
    assert (read.metrics_port, read.probe_port, read.operator_namespace) == (
        METRICS_PORT,
        PROBE_PORT,
        "distill-operator",
    )


def test_every_field_of_the_configuration_follows_the_values(tmp_path: Path) -> None:
    default = loaded(configuration(golden("default")), tmp_path).model_dump(by_alias=True)
    everything = loaded(configuration(golden("everything")), tmp_path).model_dump(by_alias=True)
    same = {field for field, value in default.items() if everything[field] == value}
    assert same == SET_BY_CHART_ALONE
    namespaces = loaded(configuration(golden("namespaces")), tmp_path)
    assert namespaces.namespaces == ["team-a", "team-b"]
    assert not namespaces.leader_election.enabled


def test_the_operator_has_the_defaults_of_the_values(tmp_path: Path) -> None:
    rendered = loaded(configuration(golden("default")), tmp_path)
    of_the_release = {"runtime_image", "operator_labels"}
    assert rendered.model_dump(exclude=of_the_release) == OperatorConfiguration().model_dump(exclude=of_the_release)


def test_the_plain_manifests_have_the_configuration_of_the_chart() -> None:
    generated = yaml.safe_load((DEPLOY / "configuration.yaml").read_text())
    assert generated == yaml.safe_load(configuration(golden("default")))


def test_the_operator_may_do_what_its_client_asks_for_and_nothing_else() -> None:
    roles = [it for it in golden("default") if it["kind"] in ("ClusterRole", "Role")]
    # The others are for people.
    own = [role for role in roles if not role["metadata"]["name"].endswith(("-view", "-edit"))]
    granted = grants(rule for role in own for rule in role["rules"])
    assert granted
    assert granted == grants(documented_grants())
    assert not [grant for grant in granted if "secrets" in grant[1] or "*" in grant[1] or "*" in grant[0]]


def test_chart_and_project_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]


def test_the_network_policy_reaches_the_progress_port_of_jobs() -> None:
    (policy,) = (it for it in golden("everything") if it["kind"] == "NetworkPolicy")
    assert policy["spec"]["egress"][-1]["ports"] == [{"port": PROGRESS_PORT, "protocol": "TCP"}]
