"""What the worker asks of an engine."""

from abc import ABC, abstractmethod

import torch


class TeacherEngine(ABC):
    """Runs the teacher's body: hidden states after the final norm, before the output head."""

    @abstractmethod
    def hidden_states(self, sequences: list[list[int]]) -> list[torch.Tensor]:
        """States of every position, [length, hidden_size] for each sequence, on the CPU, in the order asked.

        Raises
        ------
        RetryError
            The engine answered with other rows than it was asked for.
        """

    @abstractmethod
    def close(self) -> None:
        """Frees the engine."""
