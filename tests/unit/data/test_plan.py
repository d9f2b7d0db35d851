"""Plans: what is read is what was written."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_runtime.data.plan import Plan, read_manifest, write_plan
from distill_runtime.data.sequence import Sequence
from distill_runtime.errors import RetryError
from tests.fixtures.memory_store import MemoryStore


def sequence(length: int, seed: int = 0) -> Sequence:
    random = np.random.default_rng([length, seed])
    mask = random.random(length) < 0.5
    mask[0], mask[-1] = False, True
    return Sequence(ids=random.integers(0, 200_000, length).astype(np.int32), target_mask=mask)


SEQUENCES = [sequence(length, seed) for seed, length in enumerate([2, 9, 30, 2, 5, 17, 8])]


@given(lengths=st.lists(st.integers(2, 40), min_size=1, max_size=20), size=st.integers(1, 6))
@settings(deadline=None)
def test_a_plan_that_is_read_is_the_plan_that_was_written(lengths: list[int], size: int) -> None:
    store = MemoryStore()
    written = [sequence(length, seed) for seed, length in enumerate(lengths)]
    plan = Plan(store, write_plan(store, "plans/x", enumerate(written), shard_sequences=size))
    assert [plan.sequence(number).digest for number in range(len(plan))] == [one.digest for one in written]
    assert plan.lengths.tolist() == lengths
    assert plan.target_counts.tolist() == [len(one.targets) for one in written]
    assert [plan.first_sequence(shard) for shard in range(len(plan.shard_sizes))] == list(range(0, len(lengths), size))


def test_the_data_digest_does_not_depend_on_the_shards_but_on_order_and_masks() -> None:
    def digest(sequences: list[Sequence], size: int) -> str:
        return write_plan(MemoryStore(), "plans/x", enumerate(sequences), shard_sequences=size).data_digest

    assert digest(SEQUENCES, 1) == digest(SEQUENCES, 4)
    assert digest(SEQUENCES, 4) != digest(SEQUENCES[::-1], 4)
    other = Sequence(ids=SEQUENCES[1].ids, target_mask=~SEQUENCES[1].target_mask & (np.arange(9) > 0))
    assert digest(SEQUENCES, 4) != digest([SEQUENCES[0], other, *SEQUENCES[2:]], 4)


def test_a_flipped_byte_in_a_shard_is_named_and_the_plan_is_made_again() -> None:
    store = MemoryStore()
    plan = Plan(store, write_plan(store, "plans/x", enumerate(SEQUENCES), shard_sequences=3))
    key = plan.manifest.shards[1].key
    data = bytearray(store.get(key))
    data[-1] ^= 1
    store.put(key, bytes(data))
    assert len(plan.shard(0)) == 3
    with pytest.raises(RetryError, match=key):
        plan.shard(1)
    assert read_manifest(store, "plans/x") is None


def test_a_missing_shard_is_named() -> None:
    store = MemoryStore()
    plan = Plan(store, write_plan(store, "plans/x", enumerate(SEQUENCES), shard_sequences=3))
    store.delete(plan.manifest.shards[2].key)
    with pytest.raises(RetryError, match=plan.manifest.shards[2].key):
        plan.shard(2)


def test_a_plan_whose_writer_fails_does_not_exist() -> None:
    def failing():
        yield 0, SEQUENCES[0]
        raise ValueError("the data ended badly")

    store = MemoryStore()
    with pytest.raises(ValueError, match="ended badly"):
        write_plan(store, "plans/x", failing(), shard_sequences=1)
    assert read_manifest(store, "plans/x") is None


def test_another_plan_under_the_same_key_is_refused() -> None:
    store = MemoryStore()
    reference = write_plan(store, "plans/x", enumerate(SEQUENCES), shard_sequences=3)
    write_plan(store, "plans/x", enumerate(SEQUENCES[:2]), shard_sequences=3)
    with pytest.raises(RetryError, match="was replaced"):
        Plan(store, reference)


def test_the_report_is_the_one_after_the_last_sequence() -> None:
    report: dict[str, int | float | str] = {}

    def counted():
        for number, one in enumerate(SEQUENCES):
            report["rows"] = number + 1
            yield number, one

    store = MemoryStore()
    write_plan(store, "plans/x", counted(), shard_sequences=2, report=report)
    manifest = read_manifest(store, "plans/x")
    assert manifest is not None
    assert manifest.report == {"rows": 7}


def test_a_plan_with_a_damaged_manifest_does_not_exist() -> None:
    store = MemoryStore()
    reference = write_plan(store, "plans/x", enumerate(SEQUENCES), shard_sequences=3)
    store.put("plans/x/manifest.json", store.get("plans/x/manifest.json")[:-9])
    assert read_manifest(store, "plans/x") is None
    with pytest.raises(RetryError, match="run prepare again"):
        Plan(store, reference)
