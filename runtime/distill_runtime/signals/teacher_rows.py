"""What the teacher said about each target, decoded: what an objective reads, whatever the way there.

Legend of shapes: T targets, H the teacher's hidden size, K most likely ids, N drawn ids.
"""

from dataclasses import dataclass

import torch

from distill_runtime.signals.head import OutputHead


@dataclass(frozen=True)
class HiddenRows:
    """The teacher's states: its whole distribution, through its head."""

    states: torch.Tensor
    """[T, H] in any precision."""
    head: OutputHead

    def __len__(self) -> int:
        return len(self.states)


@dataclass(frozen=True)
class TopKRows:
    """The K most likely ids at the temperature of the objective, and all others together as one more outcome.

    The K + 1 outcomes of a row are a distribution.
    """

    ids: torch.Tensor
    """[T, K] int64; the most likely id first, each one once."""
    log_probabilities: torch.Tensor
    """[T, K] float32."""
    log_tail: torch.Tensor
    """[T] float32, the log-probability of all other ids together; −inf where there are none."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class SampledRows:
    """Ids drawn from the teacher, with weights whose expected sum over the draws of an id is its probability."""

    ids: torch.Tensor
    """[T, N] int64; each id once, places that are not used hold 0."""
    weights: torch.Tensor
    """[T, N] float32, at least 0; 0 in places that are not used."""

    def __len__(self) -> int:
        return len(self.ids)


TeacherRows = HiddenRows | TopKRows | SampledRows
