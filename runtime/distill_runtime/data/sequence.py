"""The unit of everything: one sequence of token ids with its targets.

Target positions belong to a role. The student's are the sequence's own; a teacher that reads other ids has a reading of
its own, whose targets are the same tokens, one to one and in the same order.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distill_runtime.digests import digest_of_bytes


@dataclass(frozen=True)
class Sequence:
    """Token ids and which of them are predicted."""

    ids: NDArray[np.int32]
    """[length]"""
    target_mask: NDArray[np.bool_]
    """[length]; never true at 0."""
    teacher: "Sequence | None" = None
    """What the teacher reads, where that is something else."""

    def __post_init__(self) -> None:
        assert self.ids.ndim == 1
        assert self.ids.shape == self.target_mask.shape
        assert not self.target_mask[:1].any(), "token 0 has nothing before it that could predict it"
        if self.teacher is not None:
            assert self.teacher.teacher is None
            assert np.array_equal(self.teacher.ids[self.teacher.targets], self.ids[self.targets])

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.ids)

    @cached_property
    def targets(self) -> NDArray[np.int64]:
        """Positions of the predicted tokens, rising. [targets]"""
        return np.flatnonzero(self.target_mask)

    @property
    def signal_positions(self) -> NDArray[np.int64]:
        """Positions whose state predicts the targets: each one before its target. [targets]"""
        return self.targets - 1

    @property
    def for_teacher(self) -> "Sequence":
        """What the teacher reads: names its signal, and its signal positions are those of the teacher's states."""
        return self if self.teacher is None else self.teacher

    @cached_property
    def digest(self) -> str:
        """Digest of ids and target mask, and of the teacher's where they are others (hex)."""
        ids = np.ascontiguousarray(self.ids, dtype="<i4").tobytes()
        own = len(self.ids).to_bytes(8, "little") + ids + np.packbits(self.target_mask).tobytes()
        if self.teacher is None:
            return digest_of_bytes(own)
        return digest_of_bytes(b"teacher" + bytes.fromhex(digest_of_bytes(own)) + bytes.fromhex(self.teacher.digest))
