"""A job that may not run here, or can't, is refused in one sentence before anything exists."""

from typing import Any

import pytest

from distill_operator.api.pods import Pods, RolePods
from distill_operator.api.volumes import Volume
from distill_operator.configuration import AllowList, OperatorConfiguration
from distill_operator.render import refusal
from tests.unit.render.golden import configuration_of, job_named
from tests.unit.render.test_pods import job_with


@pytest.mark.parametrize("name", ["minimal", "everything"])
def test_without_lists_everything_is_allowed(name: str) -> None:
    assert refusal(job_named(name), configuration_of(name)) is None


@pytest.mark.parametrize(
    ("image", "patterns", "allowed"),
    [
        ("registry/a:1", ["registry/a:1"], True),
        ("registry/a:1", ["registry/*"], True),
        ("registry/a:1", ["other/*", "*:1"], True),
        ("registry/a:1", ["*"], True),
        ("registry/a:1", ["registry/a"], False),
        ("registry/a:1", ["egistry/*"], False),
        ("registry.evil/a:1", ["registry?evil/*", "registry.e[v]il/*"], False),
        ("registryXevil/a:1", ["registry.evil/*"], False),
        ("evil/a:1\nregistry/a:1", ["registry/*"], False),
    ],
)
def test_an_image_must_match_a_pattern_as_a_whole(image: str, patterns: list[str], allowed: bool) -> None:
    configuration = OperatorConfiguration(allow=AllowList(images=patterns))
    sentence = refusal(job_with(pods={"teacher": {"image": image}}), configuration)
    assert (sentence is None) == allowed


def test_the_sentence_names_field_value_and_what_is_allowed() -> None:
    configuration = OperatorConfiguration(allow=AllowList(images=["good/*", "also/*"]))
    assert refusal(job_with(pods={"evaluate": {"image": "bad/x:1"}}), configuration) == (
        "spec.pods.evaluate.image: bad/x:1 is not among the images that this cluster allows (good/*, also/*); "
        "use one of them, or leave the field out"
    )


@pytest.mark.parametrize(
    ("pods", "field"),
    [
        (
            {"student": {"volumes": [{"name": "w", "mountPath": "/w", "image": "bad/x"}]}},
            "spec.pods.student.volumes[0].image",
        ),
        ({"prepare": {"serviceAccount": "root"}}, "spec.pods.prepare.serviceAccount"),
    ],
)
def test_image_volumes_and_service_accounts_are_judged_too(pods: Any, field: str) -> None:
    configuration = OperatorConfiguration(allow=AllowList(images=["good/*"], service_accounts=["distill-*"]))
    sentence = refusal(job_with(pods=pods), configuration)
    assert sentence is not None
    assert sentence.startswith(f"{field}: ")


def test_what_the_administrator_configured_is_allowed() -> None:
    configuration = OperatorConfiguration(
        runtime_image="own/runtime:1",
        pods=RolePods(teacher=Pods(image="own/teacher:1", service_account="own")),
        allow=AllowList(images=["good/*"], service_accounts=["distill-*"]),
    )
    assert refusal(job_with(), configuration) is None


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"teacher": {"model": "pvc://Models/x"}}, "spec.teacher.model"),
        ({"student": {"model": "pvc:///x"}}, "spec.student.model"),
        ({"data": {"train": ["hf://datasets/a/b/c", "pvc://../x"]}}, "spec.data.train[1]"),
        ({"data": {"sources": [{"uri": "hf://datasets/a/b/c"}, {"uri": "pvc://../x"}]}}, "spec.data.sources[1].uri"),
    ],
)
def test_a_claim_that_cannot_exist_is_named(spec: Any, field: str) -> None:
    sentence = refusal(job_with(**spec), OperatorConfiguration())
    assert sentence is not None
    assert sentence.startswith(f"{field}: pvc://")
    assert sentence.endswith("names no PersistentVolumeClaim; write it as pvc://claim/path")


@pytest.mark.parametrize(
    ("configured", "own", "problem"),
    [
        (Pods(cpu_limit="2"), {"cpu": "4"}, "cpu must not be more than cpuLimit"),
        (Pods(shared_memory="16Gi"), {"memory": "8Gi"}, "sharedMemory must not be more than memory"),
        (
            Pods(volumes=[Volume(name="one", mount_path="/data", claim="one")]),
            {"volumes": [{"name": "other", "mountPath": "/data", "claim": "other"}]},
            "two volumes have the same mountPath",
        ),
    ],
)
def test_what_fits_neither_with_the_other_is_refused(configured: Pods, own: Any, problem: str) -> None:
    configuration = OperatorConfiguration(pods=RolePods(teacher=configured))
    sentence = refusal(job_with(pods={"teacher": own}), configuration)
    assert sentence is not None
    assert sentence.startswith(f"spec.pods.teacher: together with its defaults, {problem}")


def test_many_defaults_and_many_of_the_jobs_own_are_no_trouble() -> None:
    def volumes(name: str) -> list[Volume]:
        return [Volume(name=f"{name}-{n}", mount_path=f"/{name}/{n}", claim=name) for n in range(16)]

    configuration = OperatorConfiguration(pods=RolePods(teacher=Pods(volumes=volumes("configured"))))
    own = [volume.model_dump(by_alias=True, exclude_none=True) for volume in volumes("own")]
    assert refusal(job_with(pods={"teacher": {"volumes": own}}), configuration) is None


def test_manifests_that_no_config_map_can_hold_are_refused() -> None:
    variables = [{"name": f"V{number}", "value": "x" * 8192} for number in range(64)]
    job = job_with(pods={"teacher": {"environment": variables}, "prepare": {"environment": variables}})
    sentence = refusal(job, OperatorConfiguration())
    assert sentence is not None
    assert sentence.startswith("spec.pods: the manifests of an attempt would take 1,0")
