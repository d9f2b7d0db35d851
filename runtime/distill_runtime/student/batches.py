"""From a step's set of sequences to the rows of each rank: pure, the same on every rank, nothing is said between them.

With packing a step's set is divided over the ranks by tokens; inside a rank it becomes rows of like length, and rows
become micro-batches. Without, rows of like length become micro-batches, which are dealt out to the ranks in rounds.
Nothing crosses a step's set, so the sum over its targets doesn't depend on the division. All ranks get the same number
of micro-batches: who has less gets empty ones, which are run with weight 0.
"""

import heapq
from collections.abc import Sequence as Many
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from distill_runtime.data.sequence import Sequence
from distill_runtime.student.grouping import Limits, group_sizes, tokens_read

Row = tuple[int, ...]
"""Numbers of the sequences in one row, in their order."""
MicroBatch = tuple[Row, ...]
"""Rows that a rank reads at a time; empty: nothing to learn, run with weight 0."""


def divide(
    sequences: Many[int],
    lengths: NDArray[np.int64],
    *,
    world: int,
    limits: Limits,
    row_tokens: int | None,
) -> list[list[MicroBatch]]:
    """The micro-batches of each rank: `[world][micro steps]`, the same number for all ranks.

    Parameters
    ----------
    sequences
        Numbers of the step's sequences. A number may occur twice (a step over the seam of two epochs).
    lengths
        Tokens of every sequence of the plan.
    limits
        How much a rank reads at a time.
    row_tokens
        Longest packed row in tokens; None puts each sequence into a row of its own.
    """
    longest_first = sorted(sequences, key=lambda s: (-int(lengths[s]), s))
    if row_tokens is None:
        return _rounds([(sequence,) for sequence in longest_first], lengths, world, limits)
    shares = _levelled(longest_first, lengths, world)
    own = [_packed(share, lengths, row_tokens, limits) for share in shares]
    steps = max(len(batches) for batches in own)
    return [[*batches, *[()] * (steps - len(batches))] for batches in own]


def _rounds(rows: list[Row], lengths: NDArray[np.int64], world: int, limits: Limits) -> list[list[MicroBatch]]:
    """Groups of like rows, dealt out in rounds: what the ranks read at the same time is of like length too.

    Every second round begins with the last rank, so that none gets the longest group of all rounds.
    """
    sizes = group_sizes([int(lengths[row[0]]) for row in rows], limits, world)
    groups = _cut(rows, sizes)
    ranks: list[list[MicroBatch]] = [[] for _ in range(world)]
    for number, first in enumerate(range(0, len(groups), world)):
        dealt: list[MicroBatch] = [*groups[first : first + world], *[()] * (first + world - len(groups))]
        for rank, batch in zip(ranks, dealt if number % 2 == 0 else reversed(dealt), strict=False):
            rank.append(batch)
    return ranks


def _cut(rows: list[Row], sizes: list[int]) -> list[MicroBatch]:
    places = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    return [tuple(rows[start:end]) for start, end in pairwise(places.tolist())]


def _packed(longest_first: list[int], lengths: NDArray[np.int64], row_tokens: int, limits: Limits) -> list[MicroBatch]:
    """A rank's micro-batches of as few rows as first fit decreasing makes.

    The rows of a micro-batch are padded to its longest: so the sequences are dealt out to as many rows of like length,
    where that fits and is less to read.
    """
    full = _first_fit(longest_first, lengths, row_tokens)
    level = [tuple(row) for row in _levelled(longest_first, lengths, len(full))]
    ways: list[tuple[int, list[MicroBatch]]] = []
    for rows in (level, full):
        longest_rows_first = sorted(rows, key=lambda row: -_tokens(row, lengths))
        tokens = [_tokens(row, lengths) for row in longest_rows_first]
        if not tokens or tokens[0] <= row_tokens:
            sizes = group_sizes(tokens, limits, 1)
            ways.append((tokens_read(tokens, sizes), _cut(longest_rows_first, sizes)))
    return min(ways, key=lambda way: way[0])[1]


def _tokens(row: Row, lengths: NDArray[np.int64]) -> int:
    return int(lengths[list(row)].sum())


def _levelled(longest_first: list[int], lengths: NDArray[np.int64], parts: int) -> list[list[int]]:
    """So many parts of like length: longest first to the part with the fewest tokens."""
    heap = [(0, part) for part in range(parts)]
    levelled: list[list[int]] = [[] for _ in range(parts)]
    for sequence in longest_first:
        tokens, part = heapq.heappop(heap)
        levelled[part].append(sequence)
        heapq.heappush(heap, (tokens + int(lengths[sequence]), part))
    return levelled


def _first_fit(longest_first: list[int], lengths: NDArray[np.int64], row_tokens: int) -> list[Row]:
    rows: list[list[int]] = []
    free: list[int] = []
    for sequence in longest_first:
        need = int(lengths[sequence])
        place = next((i for i, room in enumerate(free) if room >= need), None)
        if place is None:
            rows.append([sequence])
            free.append(row_tokens - need)
        else:
            rows[place].append(sequence)
            free[place] -= need
    return [tuple(row) for row in rows]


def own_sequences(batches: Many[MicroBatch]) -> list[int]:
    """The sequences of one rank, in the order in which it reads them."""
    return [sequence for batch in batches for row in batch for sequence in row]


@dataclass(frozen=True)
class Arrays:
    """One micro-batch as arrays. Rows are padded on the right: with causal attention no token sees the padding."""

    input_ids: NDArray[np.int64]
    """[rows, length]"""
    position_ids: NDArray[np.int64] | None
    """[rows, length], from 0 in each segment (padding is a segment of its own); None without packing."""
    segment_starts: NDArray[np.int32] | None
    """Starts of all segments in the flat batch and its end: `cu_seqlens` of flash attention. None without packing."""
    state_index: NDArray[np.int64]
    """[targets] flat index (row · length + position) of the state that predicts each target."""
    targets: NDArray[np.int64]
    """[targets]"""
    weight: float
    """1, or 0 for a batch without a target: it has one stand-in target, so that its backward pass is a real one."""


def assemble(batch: MicroBatch, sequences: dict[int, Sequence], *, packed: bool) -> Arrays:
    """The arrays of one micro-batch; targets in the order of `own_sequences`."""
    rows = [[sequences[number] for number in row] for row in batch]
    length = max((sum(s.length for s in row) for row in rows), default=2)
    ids = np.zeros((max(1, len(rows)), max(2, length)), dtype=np.int64)
    positions = np.tile(np.arange(ids.shape[1]), (ids.shape[0], 1))
    starts: list[int] = []
    index: list[NDArray[np.int64]] = []
    targets: list[NDArray[np.int64]] = []
    for r, row in enumerate(rows):
        at = 0
        for s in row:
            ids[r, at : at + s.length] = s.ids
            positions[r, at:] -= positions[r, at]
            starts.append(r * ids.shape[1] + at)
            index.append(r * ids.shape[1] + at + s.signal_positions)
            targets.append(s.ids[s.targets].astype(np.int64))
            at += s.length
        if at < ids.shape[1]:
            positions[r, at:] -= positions[r, at]
            starts.append(r * ids.shape[1] + at)
    found = int(sum(len(t) for t in targets))
    return Arrays(
        input_ids=ids,
        position_ids=positions if packed else None,
        segment_starts=np.array([*(starts or [0]), ids.size], dtype=np.int32) if packed else None,
        state_index=np.concatenate(index) if found else np.zeros(1, dtype=np.int64),
        targets=np.concatenate(targets) if found else np.zeros(1, dtype=np.int64),
        weight=1.0 if found else 0.0,
    )
