"""The DistillJobs that there are, as far as the operator needs to know them between passes."""

from collections import Counter
from dataclasses import dataclass
from typing import get_args

from distill_operator.api.status import Phase
from distill_operator.cluster.objects import JobKey, Object, is_deleting, metadata_of, part_of, uid_of
from distill_operator.metrics import JOBS


@dataclass(frozen=True)
class Seen:
    """A job as it was last heard of."""

    uid: str
    generation: int
    deleting: bool
    phase: str


class JobIndex:
    """Known jobs. Says which news are worth a pass: a status that we wrote ourselves is none."""

    def __init__(self) -> None:
        self._jobs: dict[JobKey, Seen] = {}

    def heard(self, key: JobKey, job: Object) -> bool:
        """A job is like this now. Returns whether a pass is due: it is new, edited, or being deleted."""
        old, new = self._jobs.get(key), _seen(job)
        if old is not None and (new.uid == old.uid and new.generation < old.generation):
            return False
        self._jobs[key] = new
        return old is None or (old.uid, old.generation, old.deleting) != (new.uid, new.generation, new.deleting)

    def gone(self, key: JobKey) -> None:
        """A job isn't there any more."""
        self._jobs.pop(key, None)

    def jobs(self) -> list[JobKey]:
        """All known jobs."""
        return list(self._jobs)

    def waiting(self, namespace: str) -> list[JobKey]:
        """Jobs of a namespace that have not begun."""
        return [key for key, seen in self._jobs.items() if key.namespace == namespace and seen.phase == "Pending"]

    def count_phases(self) -> None:
        """Sets the metric of jobs by phase."""
        counts = Counter(seen.phase for seen in self._jobs.values())
        for phase in get_args(Phase):
            JOBS.labels(phase).set(counts[phase])


def _seen(job: Object) -> Seen:
    return Seen(
        uid=uid_of(job),
        generation=metadata_of(job).get("generation", 0),
        deleting=is_deleting(job),
        phase=part_of(job, "status").get("phase", "Pending"),
    )
