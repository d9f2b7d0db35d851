"""The operator dies, is replaced, upgraded and cut off from the API server; jobs don't notice."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import distill_operator
from distill_operator.constants import ATTEMPT_LABEL, JOB_LABEL, ROLE_LABEL
from tests.control_plane.jobs.job import Job
from tests.control_plane.jobs.place import Place
from tests.control_plane.jobs.relay import Relay
from tests.fixtures.api_server import ApiServer, Object, path_of
from tests.fixtures.operator import OperatorProcess
from tests.fixtures.pod_acts import Play, runs, taught, trained
from tests.fixtures.watched_job import revision
from tests.testcluster.control_plane import ControlPlane

Start = Callable[..., OperatorProcess]

PODS = {"prepare": 1, "teacher": 1, "student": 2, "evaluate": 1}
"""Of a job that nobody disturbs."""
ALONE = {"enabled": False}
"""Leader election where one operator follows another: it need not wait until the lease of a killed one is over."""
MANY = 20
OUTAGE_SECONDS = 10.0
MOST_CONNECTIONS = 8 * 10
"""In an outage: about a dozen watches and clients, each with pauses that grow to seconds."""
TAKE_OVER_SECONDS = 45
"""The lease's nine, and what a busy machine adds."""
LEASE = path_of("leases", "distill-operator", "distill-operator")
OTHER_RENDER: Object = {
    "runtimeImage": "registry.example/runtime:2",
    "pods": {"student": {"labels": {"tier": "new"}, "memory": "1Gi"}, "teacher": {"cpu": "2"}},
}
"""Settings that make other children."""


@contextmanager
def operating(start: Start, **settings: object) -> Iterator[OperatorProcess]:
    """An operator that is ended with the block."""
    operator = start(**settings)
    try:
        yield operator
    finally:
        operator.stop()


@pytest.fixture
def relay(operator_kubeconfig: Path) -> Iterator[Relay]:
    """A wire to the API server for the operator alone."""
    relay = Relay(operator_kubeconfig)
    relay.start()
    yield relay
    relay.stop()


def image_of(pod: Object) -> str:
    return pod["spec"]["containers"][0]["image"]


def pods_by_role(job: Job) -> dict[str, int]:
    return dict(Counter(pod["metadata"]["labels"][ROLE_LABEL] for pod in job.pods_ever().values()))


def test_an_operator_killed_after_each_of_its_writes_does_nothing_twice(place: Place, start_operator: Start) -> None:
    job = place.job("killed").create()
    seen = kills = 0
    while job.phase != "Succeeded":
        with operating(start_operator, leaderElection=ALONE) as operator:
            # Between a status and what follows from it.
            place.world.wait("the next status", lambda seen=seen: len(job.statuses()) > seen, job.phase_seconds)
            operator.kill()
            kills += 1
        seen = len(job.statuses())
    place.world.catch_up(place.namespace)
    assert kills >= 4
    assert pods_by_role(job) == PODS
    assert job.attempt == 1
    assert job.phases()[-4:] == ["Preparing", "Distilling", "Evaluating", "Succeeded"]
    with operating(start_operator, leaderElection=ALONE):
        left = ("deployments", "statefulsets", "jobs", "services", "networkpolicies")
        job.wait("nothing left of it", lambda: not any(job.children(resource) for resource in left))


def test_a_second_operator_goes_on_when_the_leader_is_killed(
    place: Place, start_operator: Start, api: ApiServer
) -> None:
    def holder() -> str:
        return (api.get(LEASE) or {}).get("spec", {}).get("holderIdentity", "")

    with operating(start_operator) as first:
        job = place.running("two-operators")
        leader = holder()
        assert leader
        with operating(start_operator):
            first.kill()
            killed = time.monotonic()
            job.change(teacher=taught(), student=trained())
            job.wait_for_phase("Succeeded")
            assert time.monotonic() - killed < TAKE_OVER_SECONDS
            assert holder() not in ("", leader)
            job.wait_for_event("Succeeded")
    assert pods_by_role(job) == PODS
    assert max(Counter(job.reasons()).values()) == 1


def test_an_operator_that_sees_everything_late_does_nothing_twice(
    place: Place, start_operator: Start, relay: Relay, tmp_path: Path
) -> None:
    kubeconfig = relay.kubeconfig(tmp_path / "kubeconfig.yaml")
    with relay.news_late_by(1.5), operating(start_operator, kubeconfig=kubeconfig):
        job = place.job("late").create().wait_for_phase("Succeeded", 180)
        job.wait_for_event("Succeeded")
    assert pods_by_role(job) == PODS
    assert job.attempt == 1
    assert max(Counter(job.reasons()).values()) == 1


@pytest.fixture(scope="module")
def newer_operator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an operator whose render differs: another port in the students' pods, other names in all."""
    folder = tmp_path_factory.mktemp("newer")
    package = Path(distill_operator.__file__).parent
    shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    constants = folder / package.name / "constants.py"
    text = constants.read_text()
    for old, new in (("MASTER_PORT = 29400", "MASTER_PORT = 29500"), ('NAME = "progress"', 'NAME = "status"')):
        assert old in text
        text = text.replace(old, new)
    constants.write_text(text)
    return folder


def test_an_upgrade_of_the_operator_replaces_no_pod(
    place: Place, api: ApiServer, start_operator: Start, newer_operator: Path
) -> None:
    with operating(start_operator):
        jobs = [place.job(f"upgraded-{number}").create(play=Play(teacher=runs, student=runs)) for number in range(MANY)]
        for job in jobs:
            job.wait_for_running("student", 2)
            job.wait_for_running("teacher", 1)
            job.wait("that the pod that prepared is removed", lambda job=job: not job.pods("prepare"))
    before = {job.name: job.uids() for job in jobs}
    with operating(start_operator, environment={"PYTHONPATH": str(newer_operator)}, **OTHER_RENDER):
        for job in jobs:
            # Drift, so that the new operator must apply something.
            api.delete(path_of("services", job.namespace, f"{job.name}-student"))
        for job in jobs:
            job.wait("its Service", lambda job=job: job.child("services", "student"))
        for job in jobs:
            assert job.uids() == before[job.name]
            student = job.child("statefulsets", "student")
            assert student is not None
            assert image_of(student["spec"]["template"]) == "registry.example/runtime:1"
            assert job.attempt == 1
        # What begins now is rendered by the new one.
        jobs[0].edit(student={"workers": 1})
        pod = jobs[0].wait_for_running("student", 1, attempt=2)[0]
        assert image_of(pod) == "registry.example/runtime:2"
        assert pod["metadata"]["labels"]["tier"] == "new"
        jobs[0].check_attempts_apart()
        for job in jobs:
            job.delete()


def test_another_render_of_a_removed_config_map_touches_nothing_until_the_attempts_end_is_stored(
    place: Place, api: ApiServer, start_operator: Start
) -> None:
    with operating(start_operator):
        job = place.running("rendered-anew")
    before = job.uids()
    with operating(start_operator, **OTHER_RENDER):
        api.delete(path_of("configmaps", job.namespace, f"{job.name}-1"))
        pods = job.wait_for_running("student", 2, attempt=2)
        assert {image_of(pod) for pod in pods} == {"registry.example/runtime:2"}
        job.finish()
    ended = next(status for status in job.statuses() if status.get("attempt", {}).get("ending"))
    assert ended["attempt"]["ending"]["reason"] == "RenderedAnew"
    assert job.status["attempts"].get("failed", 0) == 0
    pods = states(place, job, "pods", attempt=1)
    assert {pod["metadata"]["uid"] for pod in pods} == before
    assert {image_of(pod) for pod in pods} == {"registry.example/runtime:1"}
    assert min(revision(pod) for pod in pods if "deletionTimestamp" in pod["metadata"]) > revision_of(place, job, ended)
    for resource in ("deployments", "statefulsets"):
        wanting = [item["spec"] for item in states(place, job, resource, attempt=1) if item["spec"]["replicas"]]
        assert {image_of(spec["template"]) for spec in wanting} == {"registry.example/runtime:1"}


def states(place: Place, job: Job, resource: str, *, attempt: int) -> list[Object]:
    """All states in which an attempt's teacher and student were seen."""
    halves = [{JOB_LABEL: job.name, ATTEMPT_LABEL: str(attempt), ROLE_LABEL: role} for role in ("teacher", "student")]
    seen = [change.item for change in place.world.changes(resource, place.namespace)]
    return [item for item in seen if any(half.items() <= item["metadata"]["labels"].items() for half in halves)]


def revision_of(place: Place, job: Job, status: Object) -> int:
    """When this status was stored."""
    seen = [change.item for change in place.world.changes("distilljobs", place.namespace)]
    return next(
        revision(item) for item in seen if item["metadata"]["name"] == job.name and item.get("status") == status
    )


def test_an_outage_with_a_compaction_is_survived_without_a_storm(
    place: Place, api: ApiServer, start_operator: Start, control_plane: ControlPlane, relay: Relay, tmp_path: Path
) -> None:
    kubeconfig = relay.kubeconfig(tmp_path / "kubeconfig.yaml")
    # An outage longer than the lease would end the operator, as it should: another one takes over.
    with operating(start_operator, kubeconfig=kubeconfig, leaderElection=ALONE) as operator:
        job, blind = place.running("outage"), place.running("blind")
        before = job.uids()
        relay.cut()
        began = len(relay.attempts)
        # What happens while nobody looks: a service and a worker vanish, and no history tells of it.
        api.delete(path_of("services", job.namespace, f"{job.name}-student"))
        api.delete(path_of("pods", blind.namespace, f"{blind.name}-student-1"))
        time.sleep(OUTAGE_SECONDS)
        control_plane.stop("kube-apiserver")
        control_plane.compact_etcd()
        control_plane.start("kube-apiserver")
        attempts = len(relay.attempts) - began
        assert 0 < attempts < MOST_CONNECTIONS
        relay.mend()
        job.wait("its Service", lambda: job.child("services", "student"))
        assert operator.alive()
        assert job.uids() == before
        blind.wait_for_running("student", 2, attempt=2)
        job.change(teacher=taught(), student=trained())
        job.wait_for_phase("Succeeded")
        blind.delete()


def test_jobs_over_the_limit_of_their_namespace_wait(make_place: Callable[[], Place], start_operator: Start) -> None:
    place = make_place()
    with operating(start_operator, maxRunningJobs=1):
        first = place.running("first-in-line")
        second = place.job("second-in-line").create()
        second.wait("that it is queued", lambda: second.status.get("reason") == "Queued")
        assert not second.pods_ever()
        assert second.phase == "Pending"
        first.change(teacher=taught(), student=trained())
        first.wait_for_phase("Succeeded")
        second.wait_for_phase("Succeeded")
