"""An attempt is rendered once; what of it exists follows from what is wanted."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_operator.constants import (
    ATTEMPT_LABEL,
    CHILDREN_KEY,
    DIGEST_ANNOTATION,
    JOB_LABEL,
    JOB_UID_LABEL,
    MANAGED_BY_LABEL,
    ROLE_LABEL,
    RUN_CONFIG_KEY,
)
from distill_operator.lifecycle.decision import Children
from distill_operator.render import (
    Manifest,
    UnreadableConfigMap,
    child_names,
    config_map,
    read_config_map,
    render_attempt,
    select,
)
from distill_runtime.contract import environment
from distill_runtime.contract.run import RunConfig
from tests.unit.render.golden import ATTEMPTS, all_wanted, configuration_of, job_named

JOB, CONFIGURATION = job_named("everything"), configuration_of("everything")
RENDERED = render_attempt(JOB, CONFIGURATION, 3)
WANTED = st.builds(
    Children,
    attempt=st.none() | st.just(3),
    running=st.booleans(),
    prepare=st.booleans(),
    evaluate=st.booleans(),
    teachers=st.none() | st.integers(0, 4),
    students=st.none() | st.integers(0, 4),
    announced_teachers=st.integers(0, 4),
)


def names(manifests: list[Manifest]) -> list[str]:
    return [f"{manifest['kind']}/{manifest['metadata']['name']}" for manifest in manifests]


def variables_of(manifest: Manifest) -> dict[str, Any]:
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in container["env"]}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_the_same_job_gives_the_same_bytes(name: str) -> None:
    def text() -> Manifest:
        job = job_named(name)
        return config_map(job, render_attempt(job, configuration_of(name), 2), 2)

    assert repr(text()) == repr(text())


def test_a_job_that_is_in_no_cluster_has_no_children() -> None:
    job = JOB.model_copy(update={"metadata": JOB.metadata.model_copy(update={"uid": None})})
    with pytest.raises(ValueError, match="team/everything has no uid"):
        render_attempt(job, CONFIGURATION, 1)


def test_the_config_map_keeps_the_attempt_whole() -> None:
    manifest = config_map(JOB, RENDERED, 3)
    assert manifest["metadata"]["name"] == "everything-3"
    assert manifest["immutable"] is True
    kept = read_config_map(manifest)
    assert kept == RENDERED
    assert kept.digest == RENDERED.digest == manifest["metadata"]["annotations"][DIGEST_ANNOTATION]
    assert select(kept, all_wanted(JOB, 3)) == select(RENDERED, all_wanted(JOB, 3))


def test_containers_read_the_run_configuration_of_their_attempt() -> None:
    data = config_map(JOB, RENDERED, 3)["data"]
    config = RunConfig.model_validate_json(data[RUN_CONFIG_KEY])
    assert (config.namespace, config.name, config.uid, config.attempt) == ("team", "everything", JOB.metadata.uid, 3)
    assert config.work == JOB.spec.work()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({}, "has no run.json: it is not the record of an attempt"),
        ({RUN_CONFIG_KEY: "{}"}, "has no children.json"),
        ({RUN_CONFIG_KEY: "{}", CHILDREN_KEY: "{"}, "children.json is not JSON"),
        ({RUN_CONFIG_KEY: "{}", CHILDREN_KEY: "[]"}, "children.json holds no manifests"),
        ({RUN_CONFIG_KEY: "{}", CHILDREN_KEY: '{"teacher": {"kind": "Deployment"}}'}, "holds no manifests"),
    ],
)
def test_a_config_map_that_holds_no_attempt_is_named(data: dict[str, str], problem: str) -> None:
    with pytest.raises(UnreadableConfigMap, match=f"ConfigMap team/everything-3.*{problem}"):
        read_config_map({"metadata": {"namespace": "team", "name": "everything-3"}, "data": data})


def test_every_manifest_is_the_jobs_own_and_is_found_by_labels() -> None:
    allowed = child_names("everything", 3)
    manifests = [config_map(JOB, RENDERED, 3), *select(RENDERED, all_wanted(JOB, 3))]
    for manifest in manifests:
        metadata = manifest["metadata"]
        assert (manifest["apiVersion"], manifest["kind"], metadata["name"]) in allowed
        assert metadata["namespace"] == "team"
        (owner,) = metadata["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("DistillJob", "everything", JOB.metadata.uid)
        assert owner["controller"] is True
        assert owner["blockOwnerDeletion"] is False
        assert {MANAGED_BY_LABEL, JOB_LABEL, JOB_UID_LABEL, ATTEMPT_LABEL} <= metadata["labels"].keys()
    assert len(manifests) == len(allowed)


@pytest.mark.parametrize("child", ["prepare", "teacher", "student", "evaluate"])
def test_pods_carry_job_role_and_attempt(child: str) -> None:
    labels = RENDERED.children[child]["spec"]["template"]["metadata"]["labels"]
    assert (labels[JOB_LABEL], labels[JOB_UID_LABEL]) == ("everything", JOB.metadata.uid)
    assert (labels[ROLE_LABEL], labels[ATTEMPT_LABEL]) == (child, "3")


def test_what_must_not_change_in_place_is_the_same_in_every_attempt() -> None:
    changed = job_named("everything").model_copy(
        update={"spec": JOB.spec.model_copy(update={"student": job_named("minimal").spec.student})}
    )
    later = render_attempt(changed, CONFIGURATION, 4).children
    for child in ("teacher", "student"):
        before, after = RENDERED.children[child], later[child]
        assert before["metadata"]["name"] == after["metadata"]["name"]
        for fixed in ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"):
            assert before["spec"].get(fixed) == after["spec"].get(fixed)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Children(), []),
        (Children(attempt=3), []),
        (
            Children(attempt=3, running=True),
            ["NetworkPolicy/everything-pods", "Service/everything-student", "Service/everything-teacher"],
        ),
        (Children(attempt=3, prepare=True), ["Job/everything-prepare-3"]),
        (Children(attempt=3, evaluate=True), ["Job/everything-evaluate-3"]),
        (Children(attempt=3, teachers=0), ["Deployment/everything-teacher"]),
        (Children(attempt=3, students=0), ["StatefulSet/everything-student"]),
    ],
)
def test_only_what_is_wanted_is_selected(wanted: Children, expected: list[str]) -> None:
    assert names(select(RENDERED, wanted)) == expected


@pytest.mark.parametrize(("teachers", "budget"), [(None, False), (0, False), (1, False), (2, True), (7, True)])
def test_teachers_have_a_disruption_budget_from_two_replicas(teachers: int | None, budget: bool) -> None:
    selected = names(select(RENDERED, Children(attempt=3, running=True, teachers=teachers)))
    assert ("PodDisruptionBudget/everything-teacher" in selected) == budget


@given(WANTED)
def test_selecting_changes_nothing_but_replicas_and_the_number_of_teachers(wanted: Children) -> None:
    kept = copy.deepcopy(RENDERED)
    for manifest in select(kept, wanted):
        digest = manifest["metadata"].pop("annotations")[DIGEST_ANNOTATION]
        assert len(digest) == 64
        (before,) = [
            child
            for child in RENDERED.children.values()
            if (child["kind"], child["metadata"]["name"]) == (manifest["kind"], manifest["metadata"]["name"])
        ]
        expected = copy.deepcopy(before)
        if manifest["kind"] == "Deployment":
            expected["spec"]["replicas"] = wanted.teachers
        if manifest["kind"] == "StatefulSet":
            expected["spec"]["replicas"] = wanted.students
            for variable in expected["spec"]["template"]["spec"]["containers"][0]["env"]:
                if variable["name"] == environment.TEACHERS:
                    variable["value"] = str(wanted.announced_teachers)
        assert manifest == expected
    assert kept == RENDERED


def test_the_digest_tells_manifests_apart() -> None:
    def digest(**wanted: Any) -> str:
        (manifest,) = select(RENDERED, Children(attempt=3, **wanted))
        return manifest["metadata"]["annotations"][DIGEST_ANNOTATION]

    assert digest(students=2) == digest(students=2)
    assert len({digest(students=2), digest(students=0), digest(students=2, announced_teachers=1)}) == 3


def test_students_know_how_many_teachers_there_are() -> None:
    (student,) = select(RENDERED, Children(attempt=3, students=2, announced_teachers=3))
    assert variables_of(student)[environment.TEACHERS] == "3"


def test_an_attempt_of_another_version_is_selected_as_it_was_kept() -> None:
    other = copy.deepcopy(RENDERED)
    del other.children["networkPolicy"]
    other.children["zone"] = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "later"}}
    assert names(select(other, Children(attempt=3, running=True))) == [
        "Service/everything-student",
        "Service/everything-teacher",
        "Secret/later",
    ]


def test_without_network_policies_there_are_none() -> None:
    configuration = CONFIGURATION.model_copy(update={"network_policies": False})
    assert "networkPolicy" not in render_attempt(JOB, configuration, 1).children


def test_claim_templates_exist_for_a_cache_of_each_worker_only() -> None:
    minimal = render_attempt(job_named("minimal"), configuration_of("minimal"), 1).children["student"]["spec"]
    assert "volumeClaimTemplates" not in minimal
    (template,) = RENDERED.children["student"]["spec"]["volumeClaimTemplates"]
    assert template["spec"]["resources"] == {"requests": {"storage": "200Gi"}}
    volumes = RENDERED.children["student"]["spec"]["template"]["spec"]["volumes"]
    assert template["metadata"]["name"] not in {volume["name"] for volume in volumes}
