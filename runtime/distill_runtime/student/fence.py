"""The fence: which attempt may write to a training, and which checkpoints count. One object, compared and swapped.

trainings/<training>/fence.json
"""

import secrets

from pydantic import Field

from distill_runtime import layout
from distill_runtime.errors import RetryError
from distill_runtime.prepared import Record
from distill_runtime.store.base import ObjectMissing, ObjectStore


class CheckpointEntry(Record):
    """A checkpoint that counts."""

    step: int
    manifest: str
    """Key of its manifest."""
    sha256: str
    """Of the manifest."""


class FenceState(Record):
    """What the fence says."""

    uid: str
    """Identity of the DistillJob whose attempt holds the fence."""
    attempt: int
    generation: int
    """How many times the fence was taken: rises with every process that trains on, whatever its job."""
    nonce: str
    """Of the process that holds the fence: an attempt that was started twice has one holder as well."""
    checkpoints: list[CheckpointEntry] = Field(default=[])
    """By step, the newest last."""
    best: CheckpointEntry | None = None
    """The one with the lowest held-out loss, where `output.select` is `best`."""


class Fence:
    """The fence as its holder sees it."""

    def __init__(self, store: ObjectStore, key: str, state: FenceState, tag: str) -> None:
        self._store = store
        self._key = key
        self._tag = tag
        self.state = state

    @classmethod
    def take(cls, store: ObjectStore, training_digest: str, *, uid: str, attempt: int) -> "Fence":
        """Takes the fence for this attempt of this job; whoever held it finds out at its next write.

        Attempts are counted by their job: a job that is made again under the same name starts with 1, and goes on with
        the training that the earlier one left.

        Raises
        ------
        RetryError
            With reason Fenced: a newer attempt of the same job holds it.
        """
        key = f"{layout.training_key(training_digest)}/fence.json"
        while True:
            try:
                data, tag = store.get_tagged(key)
            except ObjectMissing:
                store.put_if_absent(
                    key, FenceState(uid=uid, attempt=0, generation=0, nonce="").model_dump_json().encode()
                )
                continue
            found = FenceState.model_validate_json(data)
            if found.uid == uid and found.attempt > attempt:
                raise _fenced(store, key, attempt, found.attempt)
            state = found.model_copy(
                update={
                    "uid": uid,
                    "attempt": attempt,
                    "generation": found.generation + 1,
                    "nonce": secrets.token_hex(8),
                }
            )
            # A lost race means that somebody else changed it: look again.
            new_tag = store.put_if_match(key, state.model_dump_json().encode(), tag)
            if new_tag is not None:
                return cls(store, key, state, new_tag)

    def update(self, checkpoints: list[CheckpointEntry], best: CheckpointEntry | None) -> None:
        """Says which checkpoints count from now on.

        Raises
        ------
        RetryError
            With reason Fenced: another process has taken the fence.
        """
        state = self.state.model_copy(update={"checkpoints": checkpoints, "best": best})
        tag = self._store.put_if_match(self._key, state.model_dump_json().encode(), self._tag)
        if tag is None:
            # The write may be ours: a client that repeats a request whose answer was lost finds its own object.
            data, tag = self._store.get_tagged(self._key)
            found = FenceState.model_validate_json(data)
            if found != state:
                raise _fenced(self._store, self._key, self.state.attempt, found.attempt)
        self.state, self._tag = state, tag

    def check(self) -> None:
        """Writes the fence as it is: fails if it isn't ours any more."""
        self.update(self.state.checkpoints, self.state.best)


def _fenced(store: ObjectStore, key: str, attempt: int, newer: int) -> RetryError:
    return RetryError(
        f"attempt {attempt} was replaced by attempt {newer} ({store.uri}/{key}): this process ends without writing.",
        reason="Fenced",
    )
