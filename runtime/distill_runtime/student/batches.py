"""From a step's set of sequences to the rows of each rank: pure, the same on every rank, nothing is said between them.

A step's set is divided over the ranks by tokens; inside a rank it becomes rows (one sequence each, or several packed
ones), and rows become micro-batches. Nothing crosses a step's set, so the sum over its targets doesn't depend on the
division. All ranks get the same number of micro-batches: who has less gets empty ones, which are run with weight 0.
"""

import math
from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill_runtime.data.sequence import Sequence

Row = tuple[int, ...]
"""Numbers of the sequences in one row, in their order."""
MicroBatch = tuple[Row, ...]
"""Rows that a rank reads at a time; empty: nothing to learn, run with weight 0."""


def divide(
    sequences: Many[int],
    lengths: NDArray[np.int64],
    *,
    world: int,
    micro_batch: int,
    row_tokens: int | None,
) -> list[list[MicroBatch]]:
    """The micro-batches of each rank: `[world][micro steps]`, the same number for all ranks.

    Parameters
    ----------
    sequences
        Numbers of the step's sequences. A number may occur twice (a step over the seam of two epochs).
    lengths
        Tokens of every sequence of the plan.
    row_tokens
        Longest packed row in tokens; None puts each sequence into a row of its own.
    """
    shares = _shares(sequences, lengths, world, capped=row_tokens is None)
    rows = [_pack(share, lengths, row_tokens) if row_tokens else [(s,) for s in share] for share in shares]
    steps = max(math.ceil(len(own) / micro_batch) for own in rows)
    return [[tuple(own[m * micro_batch : (m + 1) * micro_batch]) for m in range(steps)] for own in rows]


def _shares(sequences: Many[int], lengths: NDArray[np.int64], world: int, *, capped: bool) -> list[list[int]]:
    """Longest first to the rank with the fewest tokens. `capped` also keeps the numbers of sequences equal to one:
    without packing a row costs a place in a micro-batch, however short it is."""
    cap = math.ceil(len(sequences) / world) if capped else len(sequences)
    shares: list[list[int]] = [[] for _ in range(world)]
    tokens = [0] * world
    for sequence in sorted(sequences, key=lambda s: (-int(lengths[s]), s)):
        rank = min((r for r in range(world) if len(shares[r]) < cap), key=lambda r: (tokens[r], r))
        shares[rank].append(sequence)
        tokens[rank] += int(lengths[sequence])
    return shares


def _pack(sequences: Many[int], lengths: NDArray[np.int64], row_tokens: int) -> list[Row]:
    """First fit decreasing; `sequences` come longest first."""
    rows: list[list[int]] = []
    free: list[int] = []
    for sequence in sequences:
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
