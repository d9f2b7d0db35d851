"""A job's own pods stand on the configured defaults."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_operator.api.affinity import Affinity, NodeAffinity, PodAffinity
from distill_operator.api.pods import EnvironmentVariable, Pods, RolePods, Toleration, TopologySpread
from distill_operator.api.volumes import ModelCache, Volume
from distill_operator.configuration import OperatorConfiguration
from distill_operator.render.merge import LISTS, MAPS, merge_pods, role_pods
from tests.unit.render.golden import configuration_of, job_named

NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.sampled_from(["x", "y"])


# Functions, since hypothesis would look for strategies of the aliases in a model's signature.
def toleration(key: str, value: str) -> Toleration:
    return Toleration(key=key, value=value)


def spread(key: str, skew: int) -> TopologySpread:
    return TopologySpread(topology_key=key, max_skew=skew)


def variable(name: str, value: str) -> EnvironmentVariable:
    return EnvironmentVariable(name=name, value=value)


def volume(name: str, claim: str) -> Volume:
    return Volume(name=name, mount_path=f"/{name}", claim=claim)


def cache(claim: str) -> ModelCache:
    return ModelCache(claim=claim)


def pods(**fields: Any) -> Pods:
    return Pods(**fields)


PODS = st.builds(
    pods,
    node_selector=st.dictionaries(NAMES, VALUES),
    labels=st.dictionaries(NAMES, VALUES),
    annotations=st.dictionaries(NAMES, VALUES),
    extra_resources=st.dictionaries(NAMES, st.sampled_from(["1", "2"])),
    tolerations=st.lists(st.builds(toleration, NAMES, VALUES), max_size=3),
    topology_spread=st.lists(
        st.builds(spread, NAMES, st.integers(1, 2)), max_size=3, unique_by=lambda one: one.topology_key
    ),
    environment=st.lists(st.builds(variable, NAMES, VALUES), max_size=3, unique_by=lambda one: one.name),
    volumes=st.lists(st.builds(volume, NAMES, VALUES), max_size=3, unique_by=lambda one: one.name),
    image_pull_secrets=st.lists(NAMES, max_size=3),
    memory=st.none() | st.sampled_from(["1Gi", "2Gi"]),
    image=st.none() | VALUES,
    model_cache=st.none() | st.builds(cache, VALUES),
    affinity=st.none()
    | st.sampled_from([Affinity(pod_affinity=PodAffinity()), Affinity(node_affinity=NodeAffinity())]),
)


def test_every_field_has_a_way_to_be_merged() -> None:
    scalars = {name for name, field in Pods.model_fields.items() if field.default is None}
    assert scalars | LISTS.keys() | set(MAPS) == Pods.model_fields.keys()
    assert scalars.isdisjoint(LISTS.keys() | set(MAPS))


@given(PODS, PODS)
def test_the_jobs_own_wins_and_nothing_else_is_lost(defaults: Pods, own: Pods) -> None:
    merged = merge_pods(defaults, own)
    for name in Pods.model_fields:
        before, mine, after = getattr(defaults, name), getattr(own, name), getattr(merged, name)
        if name in MAPS:
            assert after == {**before, **mine}
        elif name in LISTS:
            key = LISTS[name]
            assert {key(entry): entry for entry in after} == {key(entry): entry for entry in [*before, *mine]}
            assert len({key(entry) for entry in after}) == len(after)
        else:
            assert after == (before if mine is None else mine)


@given(PODS, PODS, PODS)
def test_merging_twice_in_either_grouping_is_the_same(first: Pods, second: Pods, third: Pods) -> None:
    assert merge_pods(merge_pods(first, second), third) == merge_pods(first, merge_pods(second, third))


@given(PODS)
def test_without_defaults_a_job_has_what_it_says(own: Pods) -> None:
    distinct = merge_pods(Pods(), own)
    assert merge_pods(distinct, Pods()) == distinct
    assert merge_pods(distinct, distinct) == distinct


@pytest.mark.parametrize(
    ("configured", "own", "expected"),
    [
        ({}, {}, None),
        ({"student": "8Gi"}, {}, "8Gi"),
        ({"student": "8Gi"}, {"student": "4Gi"}, "4Gi"),
        ({"student": "8Gi", "evaluate": "2Gi"}, {"student": "4Gi"}, "2Gi"),
        ({"student": "8Gi", "evaluate": "2Gi"}, {"evaluate": "1Gi"}, "1Gi"),
    ],
)
def test_the_evaluation_stands_on_the_student(
    configured: dict[str, str], own: dict[str, str], expected: str | None
) -> None:
    def roles(memory: dict[str, str]) -> RolePods:
        fields: dict[str, Any] = {role: Pods(memory=amount) for role, amount in memory.items()}
        return RolePods(**fields)

    job = job_named("minimal")
    job = job.model_copy(update={"spec": job.spec.model_copy(update={"pods": roles(own)})})
    assert role_pods(job, OperatorConfiguration(pods=roles(configured)))["evaluate"].memory == expected


def test_every_role_has_an_image_a_gpu_resource_and_a_startup_budget() -> None:
    for one in role_pods(job_named("minimal"), OperatorConfiguration(runtime_image="r:1")).values():
        assert (one.image, one.image_pull_policy) == ("r:1", "IfNotPresent")
        assert (one.accelerator, one.startup_seconds) == ("nvidia.com/gpu", 3600)
    own = role_pods(job_named("everything"), configuration_of("everything"))["teacher"]
    assert (own.image, own.accelerator, own.startup_seconds) == (
        "registry.example.com/runtime:1.2.3",
        "example.com/gpu",
        7195,
    )
