"""When a job is tried again, when it is given up, and how long it is kept."""

from pydantic import Field

from distill_runtime.contract.sections import Section


class Policy(Section):
    """How failures, hangs and ends are treated."""

    backoff_limit: int = Field(default=3, ge=0, le=1000)
    """Failed attempts before the job fails. Evictions, preemptions and suspensions don't count."""
    active_deadline_seconds: int | None = Field(default=None, ge=1, le=2**31 - 1)
    """Longest time that the job may be active, over all attempts since it was last resumed. Unset: no limit."""
    startup_deadline_seconds: int = Field(default=1800, ge=10, le=2**31 - 1)
    """Longest time until all pods of an attempt run. Then both halves are released; the job fails if nothing started,
    and is tried again if only one half did."""
    stall_timeout_seconds: int = Field(default=1800, ge=10, le=2**31 - 1)
    """Longest time without a step, a shard or an evaluated example before an attempt is ended as stalled. Pods don't
    get on while they wait for a store that can't be reached: so it bounds the outages that are waited for too."""
    node_lost_seconds: int = Field(default=60, ge=0, le=86400)
    """How long a pod on a node that doesn't answer is waited for before it is replaced."""
    checkpoint_grace_seconds: int = Field(default=120, ge=1, le=86400)
    """Time that pods get to save a checkpoint when they are asked to end."""
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0, le=2**31 - 1)
    """The DistillJob is deleted so long after its end. Unset: never. Leave it unset under GitOps, which would make the
    job again."""
