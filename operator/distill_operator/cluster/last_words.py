"""Pods that are gone: what they said last is kept until a pass has stored what follows from it."""

from collections.abc import Iterable

from distill_operator.cluster.objects import JobKey, Object, job_keys, uid_of


class LastWords:
    """The last states of removed pods, by job and uid."""

    def __init__(self) -> None:
        self._pods: dict[JobKey, dict[str, Object]] = {}

    def keep(self, pod: Object) -> None:
        """Keeps the last state of a pod that was removed."""
        for key in job_keys(pod):
            self._pods.setdefault(key, {})[uid_of(pod)] = pod

    def of(self, key: JobKey) -> tuple[Object, ...]:
        """The pods of a job whose last words weren't taken yet."""
        return tuple(self._pods.get(key, {}).values())

    def took(self, key: JobKey, pods: Iterable[Object]) -> None:
        """These were heard, and what follows from them is stored."""
        left = self._pods.get(key, {})
        for pod in pods:
            left.pop(uid_of(pod), None)
        if not left:
            self._pods.pop(key, None)

    def forget(self, key: JobKey) -> None:
        """The job is gone."""
        self._pods.pop(key, None)
