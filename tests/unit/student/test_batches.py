import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distill_runtime.data.sequence import Sequence
from distill_runtime.student.batches import MicroBatch, assemble, divide, own_sequences
from distill_runtime.student.grouping import Limits

ROW = 32

plans = st.lists(st.integers(1, ROW), min_size=1, max_size=40).map(lambda n: np.array(n, dtype=np.int64))


@st.composite
def steps(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    lengths = draw(plans)
    # A step over the seam of two epochs may hold a sequence twice.
    return lengths, draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=60))


@given(step=steps(), world=st.integers(1, 5), micro=st.integers(1, 4), packed=st.booleans())
def test_every_sequence_is_read_exactly_once_in_equally_many_micro_steps(
    step: tuple[np.ndarray, list[int]], world: int, micro: int, packed: bool
) -> None:
    lengths, sequences = step
    ranks = divide(sequences, lengths, world=world, limits=Limits(rows=micro), row_tokens=ROW if packed else None)
    assert len(ranks) == world
    assert len({len(batches) for batches in ranks}) == 1
    assert Counter(s for batches in ranks for s in own_sequences(batches)) == Counter(sequences)
    rows = [row for batches in ranks for batch in batches for row in batch]
    assert all(len(batch) <= micro for batches in ranks for batch in batches)
    if packed:
        assert all(sum(lengths[list(row)]) <= ROW for row in rows)
    else:
        assert all(len(row) == 1 for row in rows)


@given(step=steps(), world=st.integers(1, 5), packed=st.booleans())
def test_the_division_depends_on_the_set_alone(step: tuple[np.ndarray, list[int]], world: int, packed: bool) -> None:
    lengths, sequences = step
    row = ROW if packed else None
    one = divide(sequences, lengths, world=world, limits=Limits(rows=2), row_tokens=row)
    other = divide(sorted(sequences), lengths, world=world, limits=Limits(rows=2), row_tokens=row)
    assert one == other


@given(step=steps(), world=st.integers(1, 5))
def test_no_rank_has_more_tokens_than_the_mean_and_one_sequence(step: tuple[np.ndarray, list[int]], world: int) -> None:
    lengths, sequences = step
    ranks = divide(sequences, lengths, world=world, limits=Limits(rows=1), row_tokens=ROW)
    tokens = [int(lengths[own_sequences(batches)].sum()) for batches in ranks]
    assert max(tokens) <= sum(tokens) / world + int(lengths[sequences].max())


@given(step=steps(), world=st.integers(1, 5), micro=st.integers(1, 4))
def test_without_packing_no_micro_step_is_spent_on_the_balance(
    step: tuple[np.ndarray, list[int]], world: int, micro: int
) -> None:
    lengths, sequences = step
    ranks = divide(sequences, lengths, world=world, limits=Limits(rows=micro), row_tokens=None)
    assert len(ranks[0]) == math.ceil(math.ceil(len(sequences) / world) / micro)


masks = arrays(np.bool_, st.integers(1, ROW))


@given(masks=st.lists(masks, min_size=1, max_size=6), packed=st.booleans(), data=st.data())
def test_arrays_hold_each_sequence_its_positions_and_its_targets(
    masks: list[np.ndarray], packed: bool, data: st.DataObject
) -> None:
    found: dict[int, Sequence] = {}
    for number, mask in enumerate(masks):
        mask[0] = False
        ids = np.arange(len(mask), dtype=np.int32) + 1000 * (number + 1)
        found[number] = Sequence(ids=ids, target_mask=mask)
    cut = data.draw(st.integers(1, len(masks)))
    numbers = list(found)
    batch: MicroBatch = (
        tuple(r for r in (tuple(numbers[:cut]), tuple(numbers[cut:])) if r)
        if packed
        else tuple((number,) for number in numbers)
    )
    made = assemble(batch, found, packed=packed)
    flat = made.input_ids.ravel()
    expected = np.concatenate([found[number].ids[found[number].targets] for number in numbers])
    if len(expected) == 0:
        assert made.weight == 0
        assert len(made.targets) == len(made.state_index) == 1
        return
    assert made.weight == 1
    assert made.targets.tolist() == expected.tolist()
    # Ids count up inside a sequence, so the token of the state is the target's id less one.
    assert flat[made.state_index].tolist() == (expected - 1).tolist()
    if made.position_ids is None:
        assert not packed
        return
    real = flat > 0
    assert made.position_ids.ravel()[real].tolist() == (flat[real] % 1000).tolist()
    assert made.segment_starts is not None
    assert (made.position_ids.ravel()[made.segment_starts[:-1]] == 0).all()
    assert int((made.position_ids == 0).sum()) == len(made.segment_starts) - 1
    assert made.segment_starts[-1] == flat.size


def test_an_empty_micro_batch_is_a_real_one_without_weight() -> None:
    made = assemble((), {}, packed=True)
    assert made.input_ids.shape == (1, 2)
    assert made.weight == 0
    assert made.segment_starts is not None
    assert made.segment_starts.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("row_tokens", "wanted"),
    [(None, [[((0,),), ()], [((1,),), ((2,),)]]), (ROW, [[((0,),), ((2,),)], [((1,),), ()]])],
)
def test_three_rows_on_two_ranks_leave_one_micro_batch_empty(row_tokens: int | None, wanted: object) -> None:
    lengths = np.array([ROW, ROW, ROW], dtype=np.int64)
    ranks = divide([0, 1, 2], lengths, world=2, limits=Limits(rows=1), row_tokens=row_tokens)
    assert ranks == wanted
