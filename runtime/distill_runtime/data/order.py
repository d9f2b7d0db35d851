"""Which sequences make step N: a pure function of (seed, N), whatever the number of workers.

An epoch's order is a permutation of the shards, then a shuffle inside each window of W shards, so that whole shards are
read one after the other. Epochs follow each other without a seam: a step may hold the end of one and the beginning of
the next; the last step of the job may be short and is trained with its true number of targets.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def total_steps(sequences: int, *, global_batch: int, steps: int | None, epochs: float | None) -> int:
    """Optimizer steps of a job: `steps`, or what `epochs` passes over the sequences take; one if both are unset."""
    if steps is not None:
        return steps
    return max(1, math.ceil(round(sequences * (epochs or 1.0)) / global_batch))


class Order:
    """The order of training over a plan's shards."""

    def __init__(
        self,
        shard_sizes: list[int],
        *,
        seed: int,
        window_shards: int,
        global_batch: int,
        steps: int | None = None,
        epochs: float | None = None,
    ) -> None:
        self._sizes = np.array(shard_sizes, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)]).astype(np.int64)
        self._seed = seed
        self._window = window_shards
        self._batch = global_batch
        self.sequences = int(self._sizes.sum())
        """Sequences of one epoch."""
        self.total_steps = total_steps(self.sequences, global_batch=global_batch, steps=steps, epochs=epochs)
        if steps is not None:
            self._total = steps * global_batch
        else:
            self._total = max(1, round(self.sequences * (epochs or 1.0)))
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def _make_epoch(self, epoch: int) -> NDArray[np.int64]:
        shards = np.random.default_rng([self._seed, epoch, 0]).permutation(len(self._sizes))
        windows: list[NDArray[np.int64]] = []
        for number, first in enumerate(range(0, len(shards), self._window)):
            window = np.concatenate(
                [np.arange(self._starts[s], self._starts[s + 1]) for s in shards[first : first + self._window]]
            )
            windows.append(np.random.default_rng([self._seed, epoch, 1, number]).permutation(window))
        return np.concatenate(windows)

    def step(self, step: int) -> NDArray[np.int64]:
        """Numbers of the sequences of step `step` (from 0), in order. [global batch, or fewer in the last step]"""
        first, last = step * self._batch, min((step + 1) * self._batch, self._total)
        places = np.arange(first, last)
        epochs = places // self.sequences
        return np.concatenate([self._epoch(int(e))[places[epochs == e] % self.sequences] for e in np.unique(epochs)])

    def shards_of_step(self, step: int) -> list[int]:
        """The shards that a step reads, in the order of their first use."""
        shards = np.searchsorted(self._starts, self.step(step), side="right") - 1
        return list(dict.fromkeys(int(shard) for shard in shards))

    def shards_by_first_use(self, first_step: int = 0, last_step: int | None = None) -> list[int]:
        """All shards that steps [first_step, last_step) read, in the order of their first use."""
        end = self.total_steps if last_step is None else min(last_step, self.total_steps)
        seen: dict[int, None] = {}
        for step in range(first_step, end):
            for shard in self.shards_of_step(step):
                seen.setdefault(shard)
            if len(seen) == len(self._sizes):
                break
        return list(seen)
