"""Rows of like length together: which rows are read at a time, so that little of what is read is padding. Pure."""

import math
from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PADDING = 0.05
"""With a budget of tokens more groups than the fewest are made where padding would be a larger part of what is read."""
MORE_GROUPS = 2
"""But not more than this many times the fewest: many tiny groups cost more than padding."""
LARGEST = 512
"""Rows up to which the best grouping is searched for. Of more rows neighbours are so alike that even groups do."""


@dataclass(frozen=True)
class Limits:
    """How much one process reads at a time."""

    rows: int | None
    """Rows; None for any number."""
    tokens: int | None = None
    """Tokens, padding included; a row that alone has more is read alone. None for any number."""

    def allows(self, rows: int, longest: int) -> bool:
        """May so many rows be read at a time, each padded to the longest?"""
        few = self.rows is None or rows <= self.rows
        return few and (self.tokens is None or rows == 1 or rows * longest <= self.tokens)


def group_sizes(lengths: Many[int], limits: Limits, world: int) -> list[int]:
    """Divides rows, longest first, into groups of neighbours; every group is read by one process at a time.

    As few groups as the limits allow, rounded up to whole rounds of all processes, which then get the padding as low as
    so many groups can. With a budget of tokens there are more rounds where padding would exceed `PADDING`.

    Parameters
    ----------
    lengths
        Tokens of each row, falling.
    world
        Number of processes; rounds of as many groups are read at the same time.

    Returns
    -------
    list[int]
        Rows in each group, which add up to all of them.
    """
    fewest = _greedy(lengths, limits)
    rounds = math.ceil(len(fewest) / world)
    if len(lengths) > LARGEST:
        return fewest
    most = rounds if limits.tokens is None else MORE_GROUPS * rounds
    best = fewest
    for groups in range(rounds * world, most * world + 1, world):
        best = _least_padding(lengths, limits, groups)
        if padding(lengths, best) <= PADDING:
            break
    return best


def padding(lengths: Many[int], sizes: Many[int]) -> float:
    """Part of what is read that is padding."""
    read = tokens_read(lengths, sizes)
    return 1 - sum(lengths) / read if read else 0.0


def tokens_read(lengths: Many[int], sizes: Many[int]) -> int:
    """Tokens of all rows, padding included."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return sum(int(lengths[start]) * size for start, size in zip(starts, sizes, strict=False))


def _greedy(lengths: Many[int], limits: Limits) -> list[int]:
    """The fewest groups: each as large as it may be."""
    sizes: list[int] = []
    longest = 0
    for length in lengths:
        if sizes and limits.allows(sizes[-1] + 1, longest):
            sizes[-1] += 1
        else:
            sizes.append(1)
            longest = length
    return sizes


def _least_padding(lengths: Many[int], limits: Limits, groups: int) -> list[int]:
    """At most `groups` groups that are together as short as can be, by dynamic programming over the number of groups:
    `cost[e]` is the least that the rows before `e` cost."""
    rows = len(lengths)
    step = _cost_of_groups(np.array(lengths, dtype=np.float64), limits)
    cost = np.full(rows + 1, np.inf)
    cost[0] = 0
    choices: list[NDArray[np.int64]] = []
    for _ in range(min(groups, rows)):
        totals = cost[:, None] + step
        choices.append(totals.argmin(0))
        # -1: one group fewer does as well.
        choices[-1] = np.where(totals.min(0) < cost, choices[-1], -1)
        cost = np.minimum(totals.min(0), cost)
    sizes: list[int] = []
    end = rows
    for choice in reversed(choices):
        start = int(choice[end])
        if start >= 0:
            sizes.append(end - start)
            end = start
    return sizes[::-1]


def _cost_of_groups(lengths: NDArray[np.float64], limits: Limits) -> NDArray[np.float64]:
    """Tokens, padding included, of a group of rows [start, end); infinite where not allowed. [rows + 1, rows + 1]"""
    places = np.arange(len(lengths) + 1)
    size = places[None, :] - places[:, None]
    longest = np.append(lengths, 0.0)[:, None]
    read = longest * size
    allowed = size > 0
    if limits.rows is not None:
        allowed &= size <= limits.rows
    if limits.tokens is not None:
        allowed &= (read <= limits.tokens) | (size == 1)
    return np.where(allowed, read, np.inf)
