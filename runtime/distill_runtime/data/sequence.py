"""The unit of everything: one sequence of token ids with its targets."""

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

    def __post_init__(self) -> None:
        assert self.ids.ndim == 1
        assert self.ids.shape == self.target_mask.shape
        assert not self.target_mask[:1].any(), "token 0 has nothing before it that could predict it"

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

    @cached_property
    def digest(self) -> str:
        """Digest of ids and target mask (hex)."""
        ids = np.ascontiguousarray(self.ids, dtype="<i4").tobytes()
        return digest_of_bytes(len(self.ids).to_bytes(8, "little") + ids + np.packbits(self.target_mask).tobytes())
