"""How a container ends, and how it reports progress while it runs."""

from enum import IntEnum
from typing import Literal

from pydantic import Field

from distill_runtime.contract.run import Role
from distill_runtime.contract.sections import Section

OUTCOME_FILE = "outcome.json"
"""Name in the state folder of the container's last word: an `Outcome`."""
PROGRESS_FILE = "progress.json"
"""Name in the state folder of what the container is doing: a `Progress`."""
TERMINATION_MESSAGE_BYTES = 4096
"""Longest termination message that Kubernetes keeps."""
CRASHED = "Crashed"
"""Reason: a fault of this project or of an engine; the log has a traceback."""
KILLED = "Killed"
"""Reason: SIGKILL from outside, for instance because memory ran out."""
SILENT = "NoOutcome"
"""Reason: a role ended without a word."""
GRACE_EXCEEDED = "GraceExceeded"
"""Reason: asked to end, a role was not done when its grace was over, and was killed."""
TERMINATED = "Terminated"
"""Reason: ended by SIGTERM with nothing to save."""


Fact = str | int | float | bool | None
"""What an outcome tells beside its end: counts, keys, scores. `facts` names those of each role."""


class ExitCode(IntEnum):
    """What a container's exit code says. Every other code counts as `RETRY`."""

    FINISHED = 0
    """The role's work is done."""
    USER_ERROR = 65
    """The user's data, spec or credentials are wrong: a retry would end the same."""
    RETRY = 75
    """Try again: a peer, a node or the store failed."""
    CHECKPOINTED = 143
    """Ended by SIGTERM at a step boundary, with a checkpoint."""


class Outcome(Section):
    """The termination message: the last word of a container."""

    role: Role
    """Who ends."""
    code: ExitCode
    """How it ends."""
    reason: str = Field(max_length=64)
    """One CamelCase word, as in a condition: `Finished`, `BadRow`, `StoreUnreachable`."""
    message: str
    """One sentence for the user: what was wrong, where, what to do."""
    attempt: int = Field(default=1, ge=1)
    """The attempt that ended."""
    needs: Literal["signals"] | None = None
    """What is missing, where the next attempt must run teachers again."""
    facts: dict[str, Fact] = Field(default={}, max_length=64)
    """What the operator copies to the status; `facts` has those of each role."""

    def termination_message(self) -> str:
        """This outcome as JSON of at most 4096 bytes: facts go first, the last before the others, then the message is
        cut."""
        outcome = self
        facts = dict(self.facts)
        while facts and outcome._size() > TERMINATION_MESSAGE_BYTES:
            facts.popitem()
            outcome = outcome.model_copy(update={"facts": facts})
        message = outcome.message
        while outcome._size() > TERMINATION_MESSAGE_BYTES:
            message = message[: len(message) * 3 // 4]
            outcome = outcome.model_copy(update={"message": message + "…"})
        return outcome._json()

    def _json(self) -> str:
        return self.model_dump_json(by_alias=True, exclude_none=True)

    def _size(self) -> int:
        return len(self._json().encode())


class Progress(Section):
    """What a container is doing now. Written to its state folder, served by its supervisor; losing it loses nothing."""

    role: Role
    """Who reports."""
    stage: str = Field(max_length=64)
    """What it does: `tokenise`, `load`, `signals`, `train`, `export`, a task's name."""
    done: int = Field(default=0, ge=0)
    """Units done: rows, shards, steps."""
    total: int | None = Field(default=None, ge=0)
    """Units in all, where known."""
    unit: str = "steps"
    """What is counted."""
    tokens_per_second: float | None = None
    """Tokens a second over the last report."""
    loss: float | None = None
    """The training loss of the last step."""
    held_out_loss: float | None = None
    """The last held-out loss."""
    wait_fraction: float | None = Field(default=None, ge=0, le=1)
    """Part of the time that the student waited for signals."""
    packing_efficiency: float | None = Field(default=None, ge=0, le=1)
    """Part of the tokens of the student's rows that is no padding."""
    reused: int | None = None
    """Units that were there already and were not computed again."""
    message: str | None = Field(default=None, max_length=1024)
    """A word for the user."""
    time: float = 0.0
    """Seconds since the epoch, when this was written."""
