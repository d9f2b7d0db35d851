"""Teams share a cluster and a store: what is one's own stays so."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster.jobs.team import BOTH_HALVES_LONG, Team, TeamJob
from tests.testcluster.kubectl import Kubectl

STORE = "tenants"
NAME = "same-name"
SECRET, KEY, VARIABLE = "private", "word", "PRIVATE_WORD"
LOOK_AROUND = """
import json, os, pathlib
mounts = [line.split()[4] for line in open("/proc/self/mountinfo")]
given = [mount for mount in mounts if mount.startswith(("/etc/", "/var/", "/run/"))]
files = [str(file) for mount in given for file in pathlib.Path(mount).rglob("*")]
tokens = [path for path in (*mounts, *files) if "serviceaccount" in path or path.endswith("/token")]
print(json.dumps({"environment": dict(os.environ), "tokens": tokens}))
"""
"""Prints what a container was given: its environment, and all that looks like a token of the API server."""
ROLES = ("prepare", "teacher", "student", "evaluate")


def word_of(team: Team) -> str:
    """What only this team knows."""
    return f"the-word-of-{team.namespace}"


def with_word(secret: str) -> dict[str, Any]:
    """Changes to a job whose pods are given a word out of a Secret."""
    variable = {"name": VARIABLE, "secret": {"name": secret, "key": KEY}}
    return {"pods": {role: {"environment": [variable]} for role in ROLES}}


@dataclass
class Tenant:
    """A team whose job has run, and what its pods saw while both halves ran."""

    team: Team
    job: TeamJob
    seen: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def tenants(make_team: Callable[[str], Team]) -> list[Tenant]:
    """Two teams whose jobs have the same name and ran at the same time; only their seeds differ."""
    teams = [make_team("red"), make_team("blue")]
    for team in teams:
        team.platform.kubectl(
            "create", "secret", "generic", SECRET, f"--from-literal={KEY}={word_of(team)}", "-n", team.namespace
        )
    jobs = [
        team.job(NAME).start(STORE, BOTH_HALVES_LONG, with_word(SECRET), {"training": {"seed": seed}})
        for seed, team in enumerate(teams)
    ]
    for job in jobs:
        job.wait_for_both_halves()
    assert all(job.phase == "Distilling" for job in jobs), "both ran at the same time"
    made = [Tenant(team, job, look_around(team.platform.kubectl, job)) for team, job in zip(teams, jobs, strict=True)]
    for job in jobs:
        job.wait_for_phase("Succeeded")
    return made


def look_around(kubectl: Kubectl, job: TeamJob) -> dict[str, dict[str, Any]]:
    """What each pod of a running job was given."""
    names = [pod["metadata"]["name"] for pod in job.pods()]
    assert len(names) == 3, "a teacher and two students"
    looks = {name: kubectl("exec", name, "-n", job.namespace, "--", "python", "-c", LOOK_AROUND) for name in names}
    return {name: json.loads(text) for name, text in looks.items()}


def test_jobs_of_the_same_name_in_two_namespaces_have_results_of_their_own(tenants: list[Tenant]) -> None:
    red, blue = (tenant.job for tenant in tenants)
    assert [job.report().namespace for job in (red, blue)] == [red.namespace, blue.namespace]
    assert red.report().training_digest != blue.report().training_digest
    assert red.status["output"]["model"] != blue.status["output"]["model"]
    for job in (red, blue):
        assert job.status["attempt"]["number"] == 1, "nobody disturbed it"
        assert job.report().student_after.kl_to_teacher is not None
        assert {pod["metadata"]["namespace"] for pod in job.pods_ever().values()} == {job.namespace}


def test_pods_are_given_their_own_teams_secrets_and_no_others(tenants: list[Tenant]) -> None:
    for tenant, other in (tenants, tenants[::-1]):
        for pod, seen in tenant.seen.items():
            assert seen["environment"][VARIABLE] == word_of(tenant.team), pod
            assert word_of(other.team) not in json.dumps(seen), pod


def test_no_pod_has_a_token_of_the_api_server(tenants: list[Tenant]) -> None:
    assert {pod: seen["tokens"] for tenant in tenants for pod, seen in tenant.seen.items() if seen["tokens"]} == {}


def test_a_secret_of_another_namespace_is_none(tenants: list[Tenant]) -> None:
    red, blue = (tenant.team for tenant in tenants)
    red.platform.kubectl("create", "secret", "generic", "reds-alone", f"--from-literal={KEY}=x", "-n", red.namespace)
    job = blue.job("thief").start(STORE, with_word("reds-alone"), {"policy": {"startupDeadlineSeconds": 15}})
    job.wait_for_phase("Failed")
    assert job.status["reason"] == "CreateContainerConfigError"
    assert 'secret "reds-alone" not found' in job.status["message"]
    assert {pod["metadata"]["labels"]["distill-operator.io/role"] for pod in job.pods_ever().values()} == {"prepare"}
