"""A DistillJob as a test drives it and looks at it."""

import copy
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from distill_operator.constants import ATTEMPT_LABEL, JOB_LABEL, ROLE_LABEL
from distill_runtime.contract.run import Role
from tests.fixtures.api_server import ApiServer, Object, path_of
from tests.fixtures.api_watch import World
from tests.fixtures.kubelet import Kubelet
from tests.fixtures.pod_acts import Play

Value = TypeVar("Value")

CHILDREN = (
    "configmaps",
    "deployments",
    "jobs",
    "networkpolicies",
    "poddisruptionbudgets",
    "pods",
    "services",
    "statefulsets",
)
"""What an operator makes, or has made by controllers."""
RESOURCES = (*CHILDREN, "distilljobs", "events")
SPEC: Object = {
    "teacher": {"model": "hf://big/model"},
    "student": {"model": "hf://small/model", "workers": 2},
    "data": {"train": "s3://bucket/*.jsonl", "evaluation": "s3://bucket/heldout.jsonl"},
    "storage": {"uri": "s3://bucket"},
    "policy": {"checkpointGraceSeconds": 5},
}
PHASE_SECONDS = 30.0


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Object:
    """`base` with `changes` on top, section by section."""
    result = copy.deepcopy(dict(base))
    for name, value in changes.items():
        inner = result.get(name)
        result[name] = merged(inner, value) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value
    return result


class Job:
    """One DistillJob."""

    def __init__(self, api: ApiServer, world: World, kubelet: Kubelet, namespace: str, name: str) -> None:
        self._api = api
        self._world = world
        self._kubelet = kubelet
        self.namespace = namespace
        self.name = name
        self._path = path_of("distilljobs", namespace, name)

    # What the user does.

    def create(self, spec: Mapping[str, Any] | None = None, play: Play | None = None) -> "Job":
        """Makes it, with changes to the usual spec; its pods follow the play."""
        self._kubelet.play(self.namespace, self.name, play or Play())
        manifest = {
            "apiVersion": "distill-operator.io/v1alpha1",
            "kind": "DistillJob",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": merged(SPEC, spec or {}),
        }
        self._api.create(path_of("distilljobs", self.namespace), manifest)
        return self

    def edit(self, **spec: Any) -> None:
        """Changes its spec."""
        self._api.patch(self._path, {"spec": spec})

    def delete(self) -> None:
        """Deletes it, children in the background, as kubectl does."""
        self._api.delete(self._path, propagationPolicy="Background")

    def change(self, **scripts: Any) -> None:
        """Changes what its pods do."""
        self._kubelet.change(self.namespace, self.name, **scripts)

    # What is there.

    @property
    def item(self) -> Object:
        """The object as it was seen last."""
        item = self._world.get("distilljobs", self.namespace, self.name)
        assert item is not None, f"{self.name} isn't there"
        return item

    @property
    def uid(self) -> str:
        """Its identity; empty while it isn't there."""
        item = self._world.get("distilljobs", self.namespace, self.name)
        return item["metadata"]["uid"] if item else ""

    @property
    def status(self) -> Object:
        """Its status."""
        item = self._world.get("distilljobs", self.namespace, self.name)
        return (item or {}).get("status", {})

    @property
    def phase(self) -> str:
        """Its phase; empty before its first status."""
        return self.status.get("phase", "")

    @property
    def attempt(self) -> int:
        """Number of its current attempt; 0 before the first."""
        return self.status.get("attempt", {}).get("number", 0)

    def condition(self, kind: str) -> Object:
        """One of its conditions."""
        return {condition["type"]: condition for condition in self.status.get("conditions", [])}.get(kind, {})

    def child(self, resource: str, name: str) -> Object | None:
        """A child, by what follows the job's name."""
        return self._world.get(resource, self.namespace, f"{self.name}-{name}")

    def children(self, resource: str) -> list[Object]:
        """All children of one kind."""
        return [item for item in self._world.all(resource, self.namespace) if self._mine(item)]

    def pods(self, role: Role | None = None, attempt: int | None = None) -> list[Object]:
        """Its pods."""
        return [pod for pod in self.children("pods") if _matches(pod, role, attempt)]

    def uids(self, role: Role | None = None) -> set[str]:
        """Identities of its pods."""
        return {pod["metadata"]["uid"] for pod in self.pods(role)}

    def replicas(self, role: Role) -> int | None:
        """What the role's workload wants; None where there is none."""
        resource = "deployments" if role == "teacher" else "statefulsets"
        child = self.child(resource, role)
        return None if child is None else child["spec"]["replicas"]

    def events(self) -> list[Object]:
        """Kubernetes Events about it."""
        return [
            event
            for event in self._world.all("events", self.namespace)
            if event["involvedObject"]["kind"] == "DistillJob" and event["involvedObject"]["name"] == self.name
        ]

    def reasons(self) -> list[str]:
        """Reasons of its Events."""
        return [event["reason"] for event in self.events()]

    # What was there.

    def statuses(self) -> list[Object]:
        """All statuses that it ever had, in order."""
        return [
            change.item["status"]
            for change in self._world.changes("distilljobs", self.namespace)
            if change.item["metadata"]["name"] == self.name and "status" in change.item
        ]

    def phases(self) -> list[str]:
        """Its phases in order, each time that they changed."""
        found: list[str] = []
        for status in self.statuses():
            if found[-1:] != [status["phase"]]:
                found.append(status["phase"])
        return found

    def pods_ever(self, role: Role | None = None) -> dict[str, Object]:
        """All pods that it ever had, as they were last seen, by uid."""
        changes = self._world.changes("pods", self.namespace)
        return {
            change.item["metadata"]["uid"]: change.item
            for change in changes
            if self._mine(change.item) and _matches(change.item, role, None)
        }

    def check_attempts_apart(self) -> None:
        """No attempt began before the pods of the one before it were gone, or had ended."""
        begun: dict[int, int] = {}
        for change in self._world.changes("distilljobs", self.namespace):
            number = change.item.get("status", {}).get("attempt", {}).get("number", 0)
            if change.item["metadata"]["name"] == self.name:
                begun.setdefault(number, revision(change.item))
        held: dict[str, int] = {}
        for change in self._world.changes("pods", self.namespace):
            over = change.kind == "DELETED" or change.item["status"].get("phase") in ("Succeeded", "Failed")
            uid = change.item["metadata"]["uid"]
            if self._mine(change.item) and over and not held.get(uid):
                held[uid] = revision(change.item)
        for uid, pod in self.pods_ever().items():
            following = begun.get(int(pod["metadata"]["labels"][ATTEMPT_LABEL]) + 1)
            assert following is None or 0 < held.get(uid, 0) < following, (
                f"{pod['metadata']['name']} was still there when the next attempt began"
            )

    def versions(self, *resources: str) -> dict[str, str]:
        """resourceVersions of its children of some kinds, by uid."""
        items = [item for resource in resources for item in self.children(resource)]
        return {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in items}

    # Waiting.

    def wait(self, what: str, probe: Callable[[], Value | None], seconds: float = PHASE_SECONDS) -> Value:
        """Waits for something about it."""
        return self._world.wait(f"{self.namespace}/{self.name}: {what}", probe, seconds, instead=self._describe)

    def wait_for_phase(self, phase: str, seconds: float = PHASE_SECONDS) -> "Job":
        """Waits for a phase; a job that ends otherwise isn't waited for any longer."""

        def there() -> bool:
            found = self.phase
            assert found == phase or found not in ("Succeeded", "Failed"), f"{phase} was expected. {self._describe()}"
            return found == phase

        self.wait(f"phase {phase}", there, seconds)
        return self

    def wait_for_running(self, role: Role, count: int, attempt: int | None = None) -> list[Object]:
        """Waits for so many running pods of a role."""

        def running() -> list[Object] | None:
            found = [pod for pod in self.pods(role, attempt) if pod["status"].get("phase") == "Running"]
            return found if len(found) == count else None

        return self.wait(f"{count} running {role} pods", running)

    def finish(self, seconds: float = 2 * PHASE_SECONDS) -> "Job":
        """Lets it come to its good end."""
        self.change(**vars(Play()))
        self.wait_for_phase("Succeeded", seconds)
        self.check_attempts_apart()
        return self

    def wait_for_event(self, reason: str) -> Object:
        """Waits for an Event."""
        return self.wait(f"event {reason}", lambda: next((e for e in self.events() if e["reason"] == reason), None))

    def _mine(self, item: Object) -> bool:
        return item["metadata"].get("labels", {}).get(JOB_LABEL) == self.name

    def _describe(self) -> str:
        pods = {
            pod["metadata"]["name"]: {
                "phase": pod["status"].get("phase"),
                "node": pod["spec"].get("nodeName"),
                "deleted": pod["metadata"].get("deletionTimestamp"),
                "containers": pod["status"].get("containerStatuses"),
            }
            for pod in self.pods()
        }
        children = {
            f"{resource}/{item['metadata']['name']}": item.get("spec", {}).get("replicas")
            for resource in CHILDREN
            if resource != "pods"
            for item in self.children(resource)
        }
        seen = {"phases": self.phases(), "status": self.status, "pods": pods, "children": children}
        return f"It has instead:\n{json.dumps(seen, indent=1)}\nEvents: {self.reasons()}"


def _matches(pod: Object, role: Role | None, attempt: int | None) -> bool:
    labels = pod["metadata"]["labels"]
    return role in (None, labels.get(ROLE_LABEL)) and attempt in (None, int(labels.get(ATTEMPT_LABEL, 0)))


def revision(item: Object) -> int:
    """Place of an object's state in the order of all writes."""
    return int(item["metadata"]["resourceVersion"])


def moment(text: str) -> datetime:
    """A time of the API server's."""
    return datetime.fromisoformat(text)
