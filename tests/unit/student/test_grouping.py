"""Rows of like length together: as little padding as so many micro-steps can have, and never more than before."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_runtime.data.chat import TextEncoder
from distill_runtime.data.sequence import Sequence
from distill_runtime.student.batches import MicroBatch, divide
from distill_runtime.student.grouping import MORE_GROUPS, PADDING, Limits, group_sizes, padding
from tests.fixtures.models import tiny_tokenizer

QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart" / "train.jsonl"
FALLING = st.lists(st.integers(1, 60), min_size=1, max_size=40).map(lambda lengths: sorted(lengths, reverse=True))
LIMITS = st.one_of(
    st.builds(lambda rows: Limits(rows=rows), st.integers(1, 6)),
    st.builds(lambda tokens: Limits(rows=None, tokens=tokens), st.integers(2, 300)),
)


def widths(lengths: np.ndarray, batch: MicroBatch) -> list[int]:
    """Tokens of each row of a micro-batch."""
    return [int(lengths[list(row)].sum()) for row in batch]


def read(lengths: np.ndarray, ranks: list[list[MicroBatch]]) -> int:
    """Tokens of all rows, padding included."""
    rows = [widths(lengths, batch) for batches in ranks for batch in batches if batch]
    return sum(max(row) * len(row) for row in rows)


def divided_by_tokens_alone(lengths: np.ndarray, *, world: int, micro: int) -> list[list[MicroBatch]]:
    """How sequences were divided without an eye for padding: to the rank with the fewest tokens, as many to each."""
    cap = math.ceil(len(lengths) / world)
    shares: list[list[int]] = [[] for _ in range(world)]
    for number in sorted(range(len(lengths)), key=lambda n: (-int(lengths[n]), n)):
        rank = min((r for r in range(world) if len(shares[r]) < cap), key=lambda r: (int(lengths[shares[r]].sum()), r))
        shares[rank].append(number)
    return [[tuple((n,) for n in share[at : at + micro]) for at in range(0, len(share), micro)] for share in shares]


def first_fit(lengths: np.ndarray, row_tokens: int) -> list[int]:
    """Tokens of the rows that first fit decreasing makes."""
    rows: list[int] = []
    for length in sorted(lengths.tolist(), reverse=True):
        place = next((i for i, row in enumerate(rows) if row + length <= row_tokens), None)
        if place is None:
            rows.append(length)
        else:
            rows[place] += length
    return rows


def compositions(rows: int) -> list[list[int]]:
    """All ways to cut a list into stretches."""
    cuts = itertools.chain.from_iterable(itertools.combinations(range(1, rows), n) for n in range(rows))
    return [np.diff([0, *cut, rows]).tolist() for cut in cuts]


def allowed(lengths: list[int], sizes: list[int], limits: Limits) -> bool:
    starts = itertools.accumulate([0, *sizes[:-1]])
    return all(limits.allows(size, lengths[start]) for start, size in zip(starts, sizes, strict=True))


@given(lengths=FALLING, limits=LIMITS, world=st.integers(1, 4))
@settings(deadline=None)
def test_groups_hold_all_rows_within_the_limits(lengths: list[int], limits: Limits, world: int) -> None:
    sizes = group_sizes(lengths, limits, world)
    assert sum(sizes) == len(lengths)
    assert min(sizes) >= 1
    assert allowed(lengths, sizes, limits)


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=9).map(lambda n: sorted(n, reverse=True)),
    limits=LIMITS,
    world=st.integers(1, 3),
)
@settings(deadline=None, max_examples=60)
def test_no_other_grouping_of_as_many_rounds_has_less_padding(lengths: list[int], limits: Limits, world: int) -> None:
    found = group_sizes(lengths, limits, world)
    possible = [sizes for sizes in compositions(len(lengths)) if allowed(lengths, sizes, limits)]
    rounds = math.ceil(len(found) / world)
    least = min(padding(lengths, sizes) for sizes in possible if len(sizes) <= rounds * world)
    assert padding(lengths, found) == pytest.approx(least)
    fewest = math.ceil(min(len(sizes) for sizes in possible) / world)
    assert rounds <= (fewest if limits.tokens is None else MORE_GROUPS * fewest)
    if rounds > fewest:
        fewer = min(padding(lengths, s) for s in possible if len(s) <= (rounds - 1) * world)
        assert fewer > PADDING


PLANS = st.lists(st.integers(1, 60), min_size=1, max_size=40).map(lambda lengths: np.array(lengths, dtype=np.int64))


@given(lengths=PLANS, world=st.integers(1, 5), micro=st.integers(1, 6))
@settings(deadline=None)
def test_padding_is_never_more_than_without_an_eye_for_it(lengths: np.ndarray, world: int, micro: int) -> None:
    ranks = divide(range(len(lengths)), lengths, world=world, limits=Limits(rows=micro), row_tokens=None)
    before = divided_by_tokens_alone(lengths, world=world, micro=micro)
    assert len(ranks[0]) == max(len(batches) for batches in before)
    assert read(lengths, ranks) <= read(lengths, before)


@given(lengths=PLANS, row_tokens=st.integers(60, 200), micro=st.integers(1, 6))
@settings(deadline=None)
def test_packed_rows_are_as_few_as_before_and_not_more_padded(lengths: np.ndarray, row_tokens: int, micro: int) -> None:
    (batches,) = divide(range(len(lengths)), lengths, world=1, limits=Limits(rows=micro), row_tokens=row_tokens)
    rows = [width for batch in batches for width in widths(lengths, batch)]
    before = first_fit(lengths, row_tokens)
    assert len(rows) == len(before)
    assert max(rows) <= row_tokens
    chunks = [before[at : at + micro] for at in range(0, len(before), micro)]
    assert len(batches) == len(chunks)
    assert read(lengths, [batches]) <= sum(max(chunk) * len(chunk) for chunk in chunks)


@given(lengths=PLANS, world=st.integers(1, 4), tokens=st.integers(2, 300), packed=st.booleans())
@settings(deadline=None)
def test_a_budget_of_tokens_holds_for_every_micro_batch_of_every_rank(
    lengths: np.ndarray, world: int, tokens: int, packed: bool
) -> None:
    row_tokens = 60 if packed else None
    limits = Limits(rows=None, tokens=tokens)
    ranks = divide(range(len(lengths)), lengths, world=world, limits=limits, row_tokens=row_tokens)
    assert len({len(batches) for batches in ranks}) == 1
    numbers = [n for batches in ranks for batch in batches for row in batch for n in row]
    assert sorted(numbers) == list(range(len(lengths)))
    for batch in (batch for batches in ranks for batch in batches if batch):
        row = widths(lengths, batch)
        assert len(row) == 1 or max(row) * len(row) <= tokens


def quickstart_lengths() -> np.ndarray:
    """Tokens of the rows of the quick start."""
    encoder = TextEncoder(tiny_tokenizer())
    rows = [json.loads(line) for line in QUICKSTART.read_text().splitlines()]
    sequences = encoder.encode([encoder.render_row(row) for row in rows])
    return np.array([s.length for s in sequences if isinstance(s, Sequence)], dtype=np.int64)


LOG_NORMAL = np.exp(np.random.default_rng(0).normal(5.3, 0.5, 1024)).astype(np.int64) + 20
"""Lengths as those of instructions and answers are: most short, a few ten times as long."""


@pytest.mark.parametrize("world", [1, 4])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("lengths", [quickstart_lengths(), LOG_NORMAL], ids=["quickstart", "log-normal"])
def test_less_than_a_twentieth_of_what_is_read_is_padding(lengths: np.ndarray, packed: bool, world: int) -> None:
    real = whole = 0
    for at in range(0, len(lengths), 128):
        step = list(range(at, min(at + 128, len(lengths))))
        ranks = divide(
            step,
            lengths,
            world=world,
            limits=Limits(rows=None, tokens=1024),
            row_tokens=1024 if packed else None,
        )
        real += int(lengths[step].sum())
        whole += read(lengths, ranks)
    assert 1 - real / whole < 0.05


def test_very_many_rows_are_grouped_without_a_search() -> None:
    lengths = sorted(np.random.default_rng(0).integers(1, 2000, 20_000).tolist(), reverse=True)
    sizes = group_sizes(lengths, Limits(rows=8), 4)
    assert allowed(lengths, sizes, Limits(rows=8))
    assert len(sizes) == 2500
    assert padding(lengths, sizes) < 0.001
