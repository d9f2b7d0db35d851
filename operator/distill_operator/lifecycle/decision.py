"""What one pass concludes."""

from dataclasses import dataclass, field
from typing import Literal

from distill_operator.api.status import DistillJobStatus


@dataclass(frozen=True)
class Event:
    """A Kubernetes Event about the job. The same event of the same attempt is told once."""

    type: Literal["Normal", "Warning"]
    reason: str
    """One CamelCase word."""
    message: str
    """One sentence."""
    key: str = ""
    """What tells repetitions apart beside reason and attempt: a pod's uid, for instance."""


@dataclass(frozen=True)
class Children:
    """What should exist for the current attempt. Everything else that is the job's is removed."""

    attempt: int | None = None
    """Its ConfigMap and all children that are not named below. None: nothing at all."""
    running: bool = False
    """The Services, NetworkPolicies and the disruption budget too; else only the ConfigMap."""
    prepare: bool = False
    """The batch Job."""
    evaluate: bool = False
    """The batch Job."""
    teachers: int | None = None
    """Replicas of the Deployment. 0 scales down and keeps it; None removes it."""
    students: int | None = None
    """Replicas of the StatefulSet. 0 scales down and keeps it; None removes it."""
    announced_teachers: int = 0
    """Teacher replicas that the students are told of (`status.attempt.teachers`)."""


@dataclass(frozen=True)
class Decision:
    """What to do now."""

    children: Children
    """From the stored status."""
    status: DistillJobStatus
    """What to store."""
    events: tuple[Event, ...] = ()
    """What to tell, once the status is stored."""
    remove_now: tuple[str, ...] = ()
    """UIDs of pods on lost nodes: removed without grace, since nobody is there to answer."""
    replace: tuple[str, ...] = ()
    """UIDs of teacher pods whose container has ended and only repeats its last word: deleted with their grace, so that
    the Deployment makes others. What they said is stored."""
    delete_job: bool = False
    """The job's time to live is over."""
    again_after: float | None = None
    """Seconds until it must be asked again although nothing happens."""
    children_changed: bool = field(default=False)
    """The stored status will want other children than this one did: ask again at once."""
