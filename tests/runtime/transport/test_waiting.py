"""Who waits for whom, and for how long; the clock is the test's."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from distill_runtime.errors import RetryError
from distill_runtime.store.base import ObjectStore
from distill_runtime.store.directory import DirectoryStore
from distill_runtime.transport.demand import read_consumption
from distill_runtime.transport.patience import Pace
from tests.fixtures.memory_store import MemoryStore, Outage
from tests.fixtures.signal_jobs import Clock, SignalJob, answer, make_all, make_job, rows_of, some_head

LEASE = 30.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def job(store: DirectoryStore, clock: Clock) -> Iterator[SignalJob]:
    job = make_job(store, pace=pace_of(clock), signal={"lease_seconds": LEASE})
    yield job
    job.close()


def pace_of(clock: Clock) -> Pace:
    return Pace(clock=clock, sleep=clock.sleep, poll_seconds=2, background=False)


def ticking() -> Pace:
    """For the student's threads: each look at the clock is half a second later."""
    clock = Clock(tick=0.5)
    return Pace(clock=clock, sleep=clock.sleep, poll_seconds=0.01, background=False)


def streaming_job(store: ObjectStore, clock: Clock, **training: object) -> SignalJob:
    return make_job(
        store,
        pace=pace_of(clock),
        sequences=40,
        evaluation=0,
        task=0,
        signal={"mode": "streaming", "watermark_bytes": 1, "lease_seconds": LEASE},
        training={"epochs": 2, "seed": 3, "shuffle_window_shards": 1, **training},
    )


def test_shards_are_taken_in_the_order_of_first_use(job: SignalJob) -> None:
    taken = make_all(job.sink())
    order = [("train", shard) for shard in job.source()._demand.order.shards_by_first_use()]
    assert taken == [("evaluation", 0), ("evaluation", 1), *order, ("task-topics", 0)]


def test_the_shard_of_a_dead_teacher_is_taken_over_after_the_lease(job: SignalJob, clock: Clock) -> None:
    dead, other = job.sink("a"), job.sink("b")
    lost = dead.take()
    assert lost is not None
    began = clock.now
    taken = make_all(other)
    assert taken[-1] == (lost.plan, lost.shard)
    assert LEASE <= clock.now - began < LEASE + 5


def test_the_shard_of_a_living_teacher_is_waited_for(job: SignalJob, clock: Clock) -> None:
    slow, other = job.sink("a"), job.sink("b")
    held = slow.take()
    assert held is not None
    began = clock.now

    def beats() -> None:
        slow.beat()
        if clock.now - began > 5 * LEASE and held.token in slow._taken:
            slow.put(held, answer(held))

    clock.on_sleep = beats
    taken = make_all(other)
    assert (held.plan, held.shard) not in taken
    assert clock.now - began > 5 * LEASE


def test_a_dead_teacher_of_an_older_attempt_delays_nobody(job: SignalJob, clock: Clock) -> None:
    lost = job.sink("a").take()
    assert lost is not None
    taken = make_all(job.attempt(2).sink("b"))
    assert taken[0] == (lost.plan, lost.shard)
    assert clock.sleeps == 0


def test_a_teacher_that_ends_gives_its_claims_up(job: SignalJob, clock: Clock) -> None:
    leaving = job.sink("a")
    lost = leaving.take()
    assert lost is not None
    leaving.close()
    assert leaving.take() is None
    assert make_all(job.sink("b"))[0] == (lost.plan, lost.shard)
    assert clock.sleeps == 0


def test_without_teachers_a_missing_signal_ends_the_student_at_once(job: SignalJob) -> None:
    make_all(job.sink())
    job.store.delete(f"{folder_of(job, 1)}/manifest-0.json")
    with pytest.raises(RetryError, match=r"shard 1 of plan train is missing .* no teacher runs") as ended:
        job.source(teachers=0).fetch("train", [5])
    assert (ended.value.needs, ended.value.reason) == ("signals", "SignalsMissing")


def folder_of(job: SignalJob, shard: int) -> str:
    return f"signals/{job.prepared.train_signal.digest}/{job.plan().manifest.shards[shard].digest}"


def test_a_missing_signal_ends_the_student_once_every_teacher_has_finished(job: SignalJob) -> None:
    sink = job.sink()
    make_all(sink)
    sink.close()
    job.store.delete(f"{folder_of(job, 1)}/manifest-0.json")
    with pytest.raises(RetryError, match="every teacher has finished") as ended:
        job.source(teachers=1, pace=ticking()).fetch("train", [5])
    assert ended.value.needs == "signals"


def test_a_teacher_that_crashed_after_all_was_done_is_not_waited_for(job: SignalJob) -> None:
    """It never says that it ended; another one had found everything done."""
    silent = job.sink("silent")
    last = job.sink("last")
    make_all(last)
    last.close()
    silent.beat()
    job.store.delete(f"{folder_of(job, 1)}/manifest-0.json")
    pace = ticking()
    with pytest.raises(RetryError) as ended:
        job.source(teachers=2, pace=pace).fetch("train", [5])
    assert ended.value.needs == "signals"
    assert isinstance(pace.clock, Clock)
    assert pace.clock.now > 1000 + LEASE


@pytest.mark.parametrize("lost", ["none", "crashed", "evicted"])
def test_a_teacher_that_is_still_to_come_is_waited_for(job: SignalJob, lost: str) -> None:
    """It loads its model, or it takes the place of one that crashed or was evicted in the middle of its work."""
    if lost != "none":
        sink = job.sink("a")
        sink.take()
        if lost == "evicted":
            sink.close()
    pace = ticking()
    source = job.source(teachers=1, pace=pace)
    assert isinstance(pace.clock, Clock)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(source.fetch, "train", [5])
        while pace.clock.now < 1000 + 5 * LEASE:
            assert not waiting.done()
        pace.clock.tick = 0.0005
        late = job.sink("late")
        make_all(late)
        (rows,) = waiting.result(timeout=30)
    assert torch.equal(rows, rows_of(job.plan().sequence(5)))


def test_presences_of_an_older_attempt_do_not_count(job: SignalJob) -> None:
    job.sink("a").close()
    source = job.attempt(2).source(teachers=1, pace=ticking())
    for _ in range(10):
        assert source._board.somebody_left()


def test_the_head_is_waited_for_and_its_absence_is_reported(job: SignalJob, clock: Clock) -> None:
    sink = job.sink(head=False)
    clock.on_sleep = lambda: sink.publish_head(some_head())
    assert job.source().head().description == some_head().description
    assert clock.sleeps == 1
    other = make_job(job.store, pace=job.pace, teacher="ab" * 32, uid="job-2")
    with pytest.raises(RetryError, match=r"output head is missing") as ended:
        other.source(teachers=0).head()
    assert ended.value.needs == "signals"
    other.close()


def test_an_outage_of_a_minute_is_survived_on_both_ends() -> None:
    store, outage, clock = MemoryStore(), Outage(), Clock()
    job = make_job(store, pace=pace_of(clock))
    sink, source = job.sink(), job.source()
    store.before = outage
    began = clock.now

    def ends() -> None:
        outage.on = outage.on and clock.now - began < 60

    clock.on_sleep = ends
    outage.on = True
    make_all(sink)
    assert clock.now - began >= 60
    began, outage.on = clock.now, True
    (rows,) = source.fetch("train", [7])
    assert clock.now - began >= 60
    assert torch.equal(rows, rows_of(job.plan().sequence(7)))
    job.close()


def test_an_outage_without_an_end_ends_the_run() -> None:
    store, outage, clock = MemoryStore(), Outage(), Clock()
    job = make_job(store, pace=pace_of(clock))
    sink = job.sink()
    store.before, outage.on = outage, True
    began = clock.now
    with pytest.raises(RetryError) as ended:
        sink.take()
    assert ended.value.reason == "StoreUnreachable"
    assert 200 < clock.now - began <= 300


def test_prefetching_stays_within_its_memory(job: SignalJob) -> None:
    make_all(job.sink())
    source = job.source(memory_bytes=600)
    source.head()
    source.announce("train", range(20))
    prefetcher = source._prefetcher
    idle = threading.Event()
    for _ in range(500):
        if prefetcher._readers == 0 and prefetcher._held:
            break
        idle.wait(0.01)
    largest = max(sum(shard.targets) for shard in job.plan().manifest.shards) * 32
    assert 0 < prefetcher._held_bytes <= max(600, largest)
    rows = source.fetch("train", range(20))
    assert all(torch.equal(rows[i], rows_of(job.plan().sequence(i))) for i in range(20))
    assert prefetcher._held_bytes == 0


def drive(job: SignalJob, *, every: int = 2) -> tuple[list[int], int]:
    """Teacher and student of a streaming job take turns. Returns what was made, and the most shards kept at once."""
    sink, source = job.sink(), job.source()
    source.head()
    demand, plan = source._demand, job.plan()
    made: list[int] = []
    kept = 0
    for step in range(demand.order.total_steps):
        source.position(step)
        source.publish()
        made += drain(sink, job)
        numbers = [int(number) for number in demand.order.step(step)]
        for number, rows in zip(numbers, source.fetch("train", numbers), strict=True):
            assert torch.equal(rows, rows_of(plan.sequence(number)))
        kept = max(kept, shards_kept(job))
        if (step + 1) % every == 0:
            source.checkpointed(step + 1)
            source.publish()
    assert sink.take() is None
    return made, kept


def shards_kept(job: SignalJob) -> int:
    return len([info for info in job.store.list("trainings/") if "/manifest-" in info.key])


class Pause(Exception):
    """The teacher would wait for the student now."""


def drain(sink: object, job: SignalJob) -> list[int]:
    """Lets the teacher work until it pauses."""
    from distill_runtime.transport.objectstore_sink import ObjectStoreSink

    assert isinstance(sink, ObjectStoreSink)
    clock = job.pace.clock
    assert isinstance(clock, Clock)

    def pause() -> None:
        raise Pause

    made: list[int] = []
    clock.on_sleep = pause
    try:
        while (work := sink.take()) is not None:
            made.append(work.shard)
            sink.put(work, answer(work))
    except Pause:
        pass
    clock.on_sleep = lambda: None
    return made


def test_the_watermark_pauses_teachers(store: DirectoryStore, clock: Clock) -> None:
    job = streaming_job(store, clock)
    sink, source = job.sink(), job.source()
    order = source._demand.order.shards_by_first_use()
    assert drain(sink, job) == order[:2], "the shard of the first step, and one ahead"
    assert drain(sink, job) == []
    source.position(1)
    source.publish()
    assert drain(sink, job) == order[2:3]
    job.close()


def test_streaming_keeps_few_shards_and_makes_them_again_in_the_second_epoch(
    store: DirectoryStore, clock: Clock
) -> None:
    job = streaming_job(store, clock)
    made, kept = drive(job)
    assert sorted(made) == sorted([*range(10), *range(10)])
    assert kept <= 4, "two steps up to the checkpoint, the current one and one ahead"
    assert shards_kept(job) == 0, "nothing is left behind"
    job.close()


def test_nothing_is_deleted_before_the_checkpoint(store: DirectoryStore, clock: Clock) -> None:
    job = streaming_job(store, clock)
    sink, source = job.sink(), job.source()
    source.head()
    for step in range(4):
        source.position(step)
        source.publish()
        drain(sink, job)
    assert shards_kept(job) == 5
    source.checkpointed(3)
    source.publish()
    assert shards_kept(job) == 2
    # A new attempt reads on from the checkpoint.
    again = job.attempt(2).source(teachers=0)
    again.position(3)
    numbers = [int(number) for number in again._demand.order.step(3)]
    assert len(again.fetch("train", numbers)) == 4
    job.close()


def test_a_lost_checkpoint_takes_the_window_back(store: DirectoryStore, clock: Clock) -> None:
    job = streaming_job(store, clock)
    job.sink()
    source = job.source()
    source.head()
    source.checkpointed(6)
    source.publish()
    again = job.attempt(2).source()
    again.position(2)
    again.publish()
    consumption = read_consumption(store, job.prepared)
    assert (consumption.checkpoint, consumption.step, consumption.attempt) == (2, 2, 2)
    job.close()


def test_an_older_attempt_does_not_publish(store: DirectoryStore, clock: Clock) -> None:
    job = streaming_job(store, clock)
    newer = job.attempt(2).source()
    newer.position(1)
    newer.publish()
    with pytest.raises(RetryError) as fenced:
        job.source()
    assert fenced.value.reason == "Fenced"
    job.close()


def test_streaming_leaves_other_jobs_signals_and_the_held_out_ones_alone(store: DirectoryStore, clock: Clock) -> None:
    other = make_job(store, pace=pace_of(clock), sequences=40, uid="job-2", training_digest="tr2")
    make_all(other.sink())
    before = [info.key for info in store.list("signals/") if "/uses/" not in info.key]
    job = streaming_job(store, clock)
    drive(job)
    assert [info.key for info in store.list("signals/") if "/uses/" not in info.key] == before
    job.close()
    other.close()


def test_an_early_stop_releases_the_teachers(store: DirectoryStore, clock: Clock) -> None:
    job = streaming_job(store, clock)
    sink, source = job.sink(), job.source()
    source.head()
    drain(sink, job)
    source.training_finished(1)
    source.publish()
    assert sink.take() is None
    assert shards_kept(job) == 0
    job.close()


def test_the_position_is_published_in_the_background(store: DirectoryStore) -> None:
    job = make_job(store, pace=Pace(poll_seconds=0.02), signal={"mode": "streaming"}, evaluation=0, task=0)
    sink = job.sink()
    for _ in range(5):
        work = sink.take()
        assert work is not None
        sink.put(work, answer(work))
    source = job.source()
    source.head()
    source.position(2)
    source.checkpointed(5)
    source.close()
    assert read_consumption(store, job.prepared).finished
    assert sink.take() is None
    job.close()
