"""What is wanted, in which order."""

from typing import Any

import pytest

from distill_runtime.signals.generations import delete_folder
from distill_runtime.transport.demand import Consumption, Demand, Wanted, missing_shards
from tests.fixtures.memory_store import MemoryStore
from tests.fixtures.signal_jobs import HIDDEN, SignalJob, make_all, make_job, random_sequences, write_sequences

ROW = HIDDEN * 4


def at(step: int, checkpoint: int = 0) -> Consumption:
    return Consumption(uid="job-1", attempt=1, checkpoint=checkpoint, step=step)


def demand_of(job: SignalJob) -> Demand:
    return Demand(job.store, job.config, job.prepared)


def indices(wanted: list[Wanted]) -> list[int]:
    return [item.index for item in wanted if item.plan == "train"]


def streaming_job(signal: dict[str, Any]) -> SignalJob:
    return make_job(
        MemoryStore(),
        sequences=40,
        signal={"mode": "streaming", "watermark_bytes": 1, **signal},
        training={"epochs": 2, "seed": 3},
    )


@pytest.fixture
def streaming() -> SignalJob:
    return streaming_job({})


def test_held_out_data_comes_first_then_training_by_first_use_then_tasks() -> None:
    job = make_job(MemoryStore(), sequences=40, training={"seed": 3})
    demand = demand_of(job)
    wanted = [(item.plan, item.index) for item in demand.all()]
    by_use = demand.order.shards_by_first_use()
    assert by_use != sorted(by_use)
    assert wanted == [("evaluation", 0), ("evaluation", 1), *(("train", i) for i in by_use), ("task-topics", 0)]


def test_shards_that_no_step_reads_are_not_wanted() -> None:
    job = make_job(MemoryStore(), sequences=40, training={"epochs": None, "steps": 2})
    assert len(indices(demand_of(job).all())) == 2


def test_shards_with_the_same_sequences_are_wanted_once() -> None:
    store = MemoryStore()
    job = make_job(store, evaluation=0, task=0)
    block = random_sequences(4, seed=9)
    train = write_sequences(store, "twice", block + random_sequences(4, seed=8) + block, 4)
    job.prepared = job.prepared.model_copy(update={"train": train})
    assert len(demand_of(job).all()) == 2
    assert len(make_all(job.sink())) == 2
    assert missing_shards(store, job.config, job.prepared) == 0


def test_the_window_holds_what_the_step_reads_and_at_least_one_shard_ahead(streaming: SignalJob) -> None:
    demand = demand_of(streaming)
    for step in range(demand.order.total_steps):
        now = set(demand.order.shards_of_step(step))
        window = indices(demand.window(at(step, step), watermark_bytes=1))
        ahead = [index for index in window if index not in now]
        assert now <= set(window)
        left = set(demand.order.shards_by_first_use(step)) - now
        assert len(ahead) == (1 if left else 0)


def test_the_window_keeps_everything_between_the_checkpoint_and_the_step(streaming: SignalJob) -> None:
    demand = demand_of(streaming)
    window = indices(demand.window(at(8, checkpoint=2), watermark_bytes=1))
    for step in range(2, 9):
        assert set(demand.order.shards_of_step(step)) <= set(window)


@pytest.mark.parametrize(
    ("signal", "row"),
    [({}, ROW), ({"kind": "topk", "k": 5, "dtype": "auto"}, 5 * 3 + 2), ({"kind": "sampled", "samples": 6}, 6)],
    ids=["hidden", "topk", "sampled"],
)
def test_the_watermark_counts_bytes_ahead_of_the_step(signal: dict[str, Any], row: int) -> None:
    demand = demand_of(streaming_job(signal))
    sizes = {item.index: sum(item.shard.targets) * row for item in demand.training()}
    now = demand.order.shards_of_step(0)
    ahead = [index for index in demand.order.shards_by_first_use() if index not in now]
    for count in range(1, len(ahead)):
        watermark = sum(sizes[index] for index in ahead[:count])
        window = indices(demand.window(at(0), watermark_bytes=watermark))
        assert window == [*now, *ahead[: count + 1]], "one more may be begun while no more than the watermark is ahead"
        assert indices(demand.window(at(0), watermark_bytes=watermark - 1)) == [*now, *ahead[:count]]


def test_missing_counts_plans_and_head_and_is_zero_when_all_is_there() -> None:
    job = make_job(MemoryStore())
    assert missing_shards(job.store, job.config, job.prepared) == 2 + 5 + 1 + 1
    sink = job.sink()
    assert missing_shards(job.store, job.config, job.prepared) == 8
    make_all(sink)
    assert missing_shards(job.store, job.config, job.prepared) == 0
    delete_folder(job.store, demand_of(job).all()[3].shard.folder)
    assert missing_shards(job.store, job.config, job.prepared) == 1


def test_missing_takes_one_listing_a_root_and_not_one_request_a_shard() -> None:
    store = MemoryStore()
    job = make_job(store, sequences=400)
    make_all(job.sink())
    store.calls.clear()
    assert missing_shards(store, job.config, job.prepared) == 0
    assert store.calls["list"] <= 3
    assert store.calls["get"] <= 4


def test_a_second_job_with_another_student_and_seed_misses_nothing() -> None:
    store = MemoryStore()
    make_all(make_job(store).sink())
    second = make_job(store, uid="job-2", training={"seed": 9, "global_batch": 5}, training_digest="tr2")
    assert missing_shards(store, second.config, second.prepared) == 0


def test_a_finished_streaming_training_misses_no_training_signals(streaming: SignalJob) -> None:
    source = streaming.source()
    source.position(0)
    source.publish()
    assert missing_shards(streaming.store, streaming.config, streaming.prepared) == 2 + 10 + 1 + 1
    source.checkpointed(demand_of(streaming).order.total_steps)
    source.publish()
    assert missing_shards(streaming.store, streaming.config, streaming.prepared) == 2 + 1 + 1
    source.close()
