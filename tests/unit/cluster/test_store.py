"""The cache never goes back, tells whom it concerns, and keeps what is gone."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from distill_operator.cluster.last_words import LastWords
from distill_operator.cluster.objects import JobKey, ObjectKey
from distill_operator.cluster.resources import CHILDREN, DEPLOYMENTS, PODS, SERVICES, Resource
from distill_operator.cluster.store import Store
from distill_operator.constants import JOB_LABEL
from tests.unit.cluster.objects import Object, child, pod

KEY = JobKey("n", "j")
STUDENT = ObjectKey(PODS, "n", "j-student-0")


class Heard:
    """A store, and what it told."""

    def __init__(self) -> None:
        self.changed: list[JobKey] = []
        self.departed: list[tuple[Resource, str]] = []
        self.words = LastWords()
        self.store = Store(changed=self.changed.append, departed=self._departed)

    def _departed(self, resource: Resource, item: Object) -> None:
        self.departed.append((resource, item["metadata"]["name"]))
        self.words.keep(item)

    def news(self) -> list[JobKey]:
        news, self.changed[:] = list(self.changed), []
        return news


def test_a_new_object_is_told_once() -> None:
    heard = Heard()
    heard.store.heard(PODS, pod())
    heard.store.heard(PODS, pod())
    assert heard.news() == [KEY]


def test_a_change_of_nothing_that_is_read_is_not_told() -> None:
    heard = Heard()
    heard.store.heard(PODS, pod(version=1))
    heard.news()
    heard.store.heard(PODS, pod(version=2, annotations={"somebody/annotation": "x"}))
    assert heard.news() == []
    heard.store.heard(PODS, pod(version=3, status={"phase": "Failed"}))
    assert heard.news() == [KEY]


def test_a_kind_without_generation_tells_of_every_change() -> None:
    heard = Heard()
    service = child("j-teacher", version=1)
    del service["metadata"]["generation"]
    heard.store.heard(SERVICES, service)
    heard.news()
    heard.store.heard(SERVICES, {"metadata": {**service["metadata"], "resourceVersion": "2"}})
    assert heard.news() == [KEY]


def test_an_own_write_is_not_told_and_its_echo_neither() -> None:
    heard = Heard()
    heard.store.wrote(DEPLOYMENTS, child("j-teacher", version=5))
    heard.store.heard(DEPLOYMENTS, child("j-teacher", version=5))
    assert heard.news() == []


def test_an_older_event_does_not_replace_an_own_write() -> None:
    heard = Heard()
    heard.store.wrote(DEPLOYMENTS, child("j-teacher", version=5, spec={"replicas": 2}))
    heard.store.heard(DEPLOYMENTS, child("j-teacher", version=4, spec={"replicas": 1}))
    found = heard.store.get(ObjectKey(DEPLOYMENTS, "n", "j-teacher"))
    assert found is not None
    assert found["spec"] == {"replicas": 2}


def test_an_older_list_does_not_drop_an_own_write() -> None:
    heard = Heard()
    heard.store.wrote(DEPLOYMENTS, child("j-teacher", version=9))
    heard.store.replaced(DEPLOYMENTS, None, [], version=8)
    assert heard.store.get(ObjectKey(DEPLOYMENTS, "n", "j-teacher")) is not None
    heard.store.replaced(DEPLOYMENTS, None, [], version=9)
    assert heard.store.get(ObjectKey(DEPLOYMENTS, "n", "j-teacher")) is None


def test_what_a_list_lacks_departed_with_its_last_state() -> None:
    heard = Heard()
    heard.store.heard(PODS, pod(version=1))
    heard.store.heard(PODS, pod("j-student-1", version=2))
    heard.news()
    heard.store.replaced(PODS, None, [pod("j-student-1", version=2)], version=7)
    assert heard.departed == [(PODS, "j-student-0")]
    assert heard.news() == [KEY]
    assert [item["metadata"]["name"] for item in heard.words.of(KEY)] == ["j-student-0"]


def test_a_list_of_one_namespace_says_nothing_about_others() -> None:
    heard = Heard()
    heard.store.heard(PODS, pod(version=1))
    heard.store.replaced(PODS, "other", [], version=7)
    assert heard.store.get(STUDENT) is not None


def test_the_state_in_a_removal_is_the_last_one() -> None:
    heard = Heard()
    heard.store.heard(PODS, pod(version=1))
    heard.store.removed(PODS, pod(version=2, status={"phase": "Failed"}))
    (last,) = heard.words.of(KEY)
    assert last["status"]["phase"] == "Failed"
    assert heard.store.get(STUDENT) is None


def test_a_pod_that_was_made_again_before_its_removal_was_heard_stays() -> None:
    heard = Heard()
    heard.store.heard(PODS, pod(version=1, uid="first"))
    heard.store.heard(PODS, pod(version=5, uid="second"))
    assert [item["metadata"]["uid"] for item in heard.words.of(KEY)] == ["first"]
    heard.store.removed(PODS, pod(version=4, uid="first"))
    found = heard.store.get(STUDENT)
    assert found is not None
    assert found["metadata"]["uid"] == "second"


def test_last_words_stay_until_they_are_taken() -> None:
    words = LastWords()
    first, second = pod(uid="first"), pod(uid="second")
    words.keep(first)
    heard = words.of(KEY)
    words.keep(second)
    words.took(KEY, heard)
    assert words.of(KEY) == (second,)
    words.forget(KEY)
    assert words.of(KEY) == ()


def test_a_child_whose_label_was_changed_is_still_found_by_its_owner() -> None:
    heard = Heard()
    heard.store.heard(DEPLOYMENTS, child("j-teacher", version=1))
    heard.news()
    labels = {"labels": {JOB_LABEL: "other"}}
    heard.store.heard(DEPLOYMENTS, child("j-teacher", version=2, metadata=labels))
    assert set(heard.news()) == {KEY, JobKey("n", "other")}
    assert [item["metadata"]["name"] for _, item in heard.store.of_job(KEY, CHILDREN)] == ["j-teacher"]


EVENTS = st.lists(st.tuples(st.sampled_from(["heard", "wrote", "removed", "list"]), st.integers(1, 30)), max_size=25)


@given(EVENTS)
def test_whatever_comes_in_whatever_order_the_version_never_falls(events: list[tuple[str, int]]) -> None:
    heard = Heard()
    key = ObjectKey(DEPLOYMENTS, "n", "j-teacher")
    newest, removed = 0, 0
    for kind, version in events:
        item: Any = child("j-teacher", version=version)
        match kind:
            case "heard":
                heard.store.heard(DEPLOYMENTS, item)
            case "wrote":
                heard.store.wrote(DEPLOYMENTS, item)
            case "removed":
                heard.store.removed(DEPLOYMENTS, item)
                removed = max(removed, version)
                newest = 0
            case _:
                heard.store.replaced(DEPLOYMENTS, None, [item], version)
        found = heard.store.get(key)
        if found is not None:
            now = int(found["metadata"]["resourceVersion"])
            assert now >= newest
            newest = now
        assert bool(list(heard.store.of_job(KEY, CHILDREN))) == (found is not None)
