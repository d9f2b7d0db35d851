"""Which sequences make step N: a pure function of (seed, N), whatever the number of workers.

An epoch's order is a permutation of the shards, then a shuffle inside each window of W shards, so that whole shards are
read one after the other. Epochs follow each other without a seam: a step may hold the end of one and the beginning of
the next; the last step of the job may be short and is trained with its true number of targets.

Sources with weights: an epoch reads each sequence of a source floor(weight) times, and once more as many of them, to
the nearest whole, as the rest of the weight says. Those are chosen without replacement, and the next epoch takes the
next ones: over any number of epochs two sequences of a source are read equally often, or one of them once more.
"""

import math
from collections.abc import Sequence as Many
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from distill_runtime.contract.sections import Training


@dataclass(frozen=True)
class Share:
    """A stretch of the data's sequences, and how often an epoch reads them."""

    sequences: int
    weight: float

    @property
    def every(self) -> int:
        """How often an epoch reads each of them."""
        return math.floor(self.weight)

    @property
    def chosen(self) -> int:
        """How many of them an epoch reads once more."""
        # The weight as it is written: 0.1 of 10 is 1, though the nearest float is a little more.
        rest = Fraction(str(self.weight)) - self.every
        return math.floor(rest * self.sequences + Fraction(1, 2))

    @property
    def epoch_sequences(self) -> int:
        """Sequences of an epoch; one that is read twice counts twice."""
        return self.every * self.sequences + self.chosen


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
        shares: Many[Share] = (),
    ) -> None:
        self._sizes = np.array(shard_sizes, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)]).astype(np.int64)
        self._seed = seed
        self._window = window_shards
        self._batch = global_batch
        self._shares = tuple(shares)
        assert not shares or sum(share.sequences for share in shares) == int(self._sizes.sum())
        self.sequences = sum(s.epoch_sequences for s in shares) if shares else int(self._sizes.sum())
        """Sequences of one epoch; one that is read twice counts twice."""
        self.total_steps = total_steps(self.sequences, global_batch=global_batch, steps=steps, epochs=epochs)
        if steps is not None:
            self._total = steps * global_batch
        else:
            self._total = max(1, round(self.sequences * (epochs or 1.0)))
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def _make_epoch(self, epoch: int) -> NDArray[np.int64]:
        visits = self._visits(epoch)
        order = np.random.default_rng([self._seed, epoch, 0]).permutation(len(visits))
        windows: list[NDArray[np.int64]] = []
        for number, first in enumerate(range(0, len(order), self._window)):
            window = np.concatenate([visits[visit] for visit in order[first : first + self._window]])
            windows.append(np.random.default_rng([self._seed, epoch, 1, number]).permutation(window))
        return np.concatenate(windows)

    def _visits(self, epoch: int) -> list[NDArray[np.int64]]:
        """What is read of a shard at a time: each shard once as a whole, or as often as its sequences' weights say, and
        then of it those that are read so often."""
        shards = [np.arange(self._starts[s], self._starts[s + 1]) for s in range(len(self._sizes))]
        if not self._shares:
            return shards
        times = np.concatenate([self._times(number, epoch) for number in range(len(self._shares))])
        read = [shard[times[shard] > before] for before in range(int(times.max())) for shard in shards]
        return [visit for visit in read if len(visit)]

    def _times(self, number: int, epoch: int) -> NDArray[np.int64]:
        """How often an epoch reads each sequence of a share. [sequences of the share]"""
        share = self._shares[number]
        times = np.full(share.sequences, share.every, dtype=np.int64)
        chosen = np.random.default_rng([self._seed, 0, 0, number, 1]).permutation(share.sequences)
        times[chosen[(epoch * share.chosen + np.arange(share.chosen)) % share.sequences]] += 1
        return times

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


def training_order(shard_sizes: list[int], training: Training, shares: Many[Share]) -> Order:
    """The order of a job's training."""
    return Order(
        shard_sizes,
        seed=training.seed,
        window_shards=training.shuffle_window_shards,
        global_batch=training.global_batch,
        steps=training.steps,
        epochs=training.epochs,
        shares=shares,
    )
