"""The children that the API server has, as last heard: by watch events and by the answers to our own writes."""

from collections.abc import Callable, Iterable, Iterator

from distill_operator.cluster.objects import (
    JobKey,
    Object,
    ObjectKey,
    job_keys,
    name_of,
    namespace_of,
    pruned,
    same_but_for_version,
    uid_of,
    version_of,
)
from distill_operator.cluster.resources import Resource

Listener = Callable[[JobKey], None]
"""Is told which job to look at."""
Departure = Callable[[Resource, Object], None]
"""Is told the last state of an object that was removed."""


class Store:
    """A cache that never goes back: of two states of an object the newer one stays, whichever came last."""

    def __init__(self, *, changed: Listener, departed: Departure) -> None:
        self._changed = changed
        self._departed = departed
        self._objects: dict[ObjectKey, Object] = {}
        self._by_job: dict[JobKey, set[ObjectKey]] = {}

    def get(self, key: ObjectKey) -> Object | None:
        """One object."""
        return self._objects.get(key)

    def of_job(self, job: JobKey, resources: Iterable[Resource]) -> list[tuple[Resource, Object]]:
        """All objects of some kinds that say that they belong to a job, oldest name first."""
        wanted = set(resources)
        keys = sorted(
            (key for key in self._by_job.get(job, ()) if key.resource in wanted),
            key=lambda key: (key.resource.plural, key.name),
        )
        return [(key.resource, self._objects[key]) for key in keys]

    def all(self, resource: Resource) -> Iterator[Object]:
        """All objects of a kind."""
        return (item for key, item in list(self._objects.items()) if key.resource == resource)

    def jobs(self) -> set[JobKey]:
        """All jobs that objects say they belong to."""
        return set(self._by_job)

    def heard(self, resource: Resource, item: Object) -> None:
        """A watch said how an object is now."""
        old, new = self._put(resource, item)
        if new is not None and (old is None or not same_but_for_version(old, new)):
            self._tell(*([old] if old else []), new)

    def wrote(self, resource: Resource, item: Object) -> None:
        """The API server answered a write of ours with the object as it is now. Who wrote needs no telling."""
        self._put(resource, item)

    def removed(self, resource: Resource, item: Object) -> None:
        """A watch said that an object was removed; `item` is its last state."""
        key = _key(resource, item)
        known = self._objects.get(key)
        if known is not None and uid_of(known) != uid_of(item) and version_of(known) > version_of(item):
            # Made again under the same name before the news of its removal came.
            self._depart(resource, pruned(resource, item))
            return
        self._drop(key)
        self._depart(resource, pruned(resource, item))

    def replaced(self, resource: Resource, namespace: str | None, items: Iterable[Object], version: int) -> None:
        """A list said which objects there are, at `version`. Those that are not in it vanished unseen."""
        listed: set[ObjectKey] = set()
        for item in items:
            listed.add(_key(resource, item))
            self.heard(resource, item)
        for key, item in list(self._objects.items()):
            in_scope = key.resource == resource and namespace in (None, key.namespace)
            if in_scope and key not in listed and version_of(item) <= version:
                self._drop(key)
                self._depart(resource, item)

    def _put(self, resource: Resource, item: Object) -> tuple[Object | None, Object | None]:
        """Returns the state before and the new one; no new one where a newer one was there already."""
        key = _key(resource, item)
        old = self._objects.get(key)
        if old is not None and version_of(item) <= version_of(old):
            return old, None
        new = pruned(resource, item)
        if old is not None:
            if uid_of(old) != uid_of(new):
                self._depart(resource, old)
            self._unindex(key, old)
        self._objects[key] = new
        for job in job_keys(new):
            self._by_job.setdefault(job, set()).add(key)
        return old, new

    def _drop(self, key: ObjectKey) -> None:
        item = self._objects.pop(key, None)
        if item is not None:
            self._unindex(key, item)

    def _unindex(self, key: ObjectKey, item: Object) -> None:
        for job in job_keys(item):
            keys = self._by_job.get(job, set())
            keys.discard(key)
            if not keys:
                self._by_job.pop(job, None)

    def _depart(self, resource: Resource, item: Object) -> None:
        self._departed(resource, item)
        self._tell(item)

    def _tell(self, *items: Object) -> None:
        for job in dict.fromkeys(job for item in items for job in job_keys(item)):
            self._changed(job)


def _key(resource: Resource, item: Object) -> ObjectKey:
    return ObjectKey(resource, namespace_of(item), name_of(item))
