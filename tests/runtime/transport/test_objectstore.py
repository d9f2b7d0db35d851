"""Both ends over real stores: what is read is what was written, by whichever replica was first."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from distill_runtime.errors import RetryError, UserError
from distill_runtime.signals.generations import GENERATIONS
from distill_runtime.signals.head_manifest import head_folder
from distill_runtime.signals.rows import encode_rows
from distill_runtime.store.base import ObjectStore
from distill_runtime.transport.demand import missing_shards
from distill_runtime.transport.patience import Pace
from tests.fixtures.signal_jobs import HIDDEN, SignalJob, answer, make_all, make_job, rows_of, some_head

PATIENT = Pace(poll_seconds=0.02)


@pytest.fixture
def job(any_store: ObjectStore) -> Iterator[SignalJob]:
    job = make_job(any_store, pace=PATIENT)
    yield job
    job.close()


def all_rows(job: SignalJob, plan: str = "train") -> list[torch.Tensor]:
    whole = job.plan(plan)
    return [rows_of(whole.sequence(number)) for number in range(len(whole))]


def assert_same(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


def objects(job: SignalJob, part_of_name: str) -> list[str]:
    return [info.key for info in job.store.list("signals/") if part_of_name in info.key]


def flip_a_byte(store: ObjectStore, key: str, place: int = -5) -> None:
    data = bytearray(store.get(key))
    data[place] ^= 0x40
    store.put(key, bytes(data))


def test_rows_of_every_plan_come_back_in_the_order_asked(job: SignalJob) -> None:
    make_all(job.sink())
    source = job.source()
    for plan in ("evaluation", "train", "task-topics"):
        wanted = all_rows(job, plan)
        order = list(reversed(range(len(wanted))))
        source.announce(plan, order)
        assert_same(source.fetch(plan, order), [wanted[number] for number in order])
    assert source.waited_seconds == 0


def test_signals_stored_in_bfloat16_come_back_as_written(any_store: ObjectStore) -> None:
    job = make_job(any_store, pace=PATIENT, signal={"dtype": "bfloat16"})
    make_all(job.sink())
    assert_same(job.source().fetch("train", [3, 0]), [all_rows(job)[number].bfloat16() for number in (3, 0)])
    job.close()


@pytest.mark.parametrize("kind", ["topk", "sampled"])
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_of_a_compact_kind_only_the_training_data_is_stored(any_store: ObjectStore, kind: str, dtype: str) -> None:
    job = make_job(any_store, pace=PATIENT, signal={"kind": kind, "k": 5, "samples": 6, "dtype": dtype})
    make_all(job.sink())
    source = job.source()
    plan, row = job.plan(), job.prepared.train_signal.row
    order = list(reversed(range(len(plan))))
    wanted = [encode_rows(plan.sequence(number), all_rows(job)[number], row, some_head()) for number in order]
    assert_same(source.fetch("train", order), wanted)
    assert sum(rows.nbytes for rows in wanted) == job.prepared.train.targets * row.row_bytes
    for name in ("evaluation", "task-topics"):
        states = [rows.to(torch.float32 if dtype == "float32" else torch.bfloat16) for rows in all_rows(job, name)]
        assert_same(source.fetch(name, list(range(len(states)))), states)
    assert missing_shards(job.store, job.config, job.prepared) == 0
    job.close()


def test_a_job_of_another_kind_makes_only_the_training_data_anew(job: SignalJob) -> None:
    make_all(job.sink())
    other = make_job(job.store, pace=PATIENT, signal={"kind": "topk", "k": 5}, uid="job-2")
    assert missing_shards(other.store, other.config, other.prepared) == 5
    assert {plan for plan, _ in make_all(other.sink())} == {"train"}
    kinds = [signal.digest for signal in (other.prepared.held_out_signal, other.prepared.train_signal)]
    assert sorted(objects(other, "/uses/job-2")) == sorted(f"signals/{digest}/uses/job-2.json" for digest in kinds)
    other.close()


@pytest.mark.parametrize("kind", ["topk", "sampled"])
@pytest.mark.parametrize("cached", [False, True])
def test_a_flipped_byte_of_a_compact_kind_is_noticed(
    any_store: ObjectStore, tmp_path: Path, kind: str, cached: bool
) -> None:
    job = make_job(any_store, pace=PATIENT, signal={"kind": kind, "k": 5, "samples": 6})
    make_all(job.sink())
    for key in objects(job, "/parts/"):
        flip_a_byte(job.store, key)
    with pytest.raises(RetryError, match="teachers must run again"):
        job.source(teachers=0, cache=tmp_path if cached else None).fetch("train", [3])
    job.close()


def test_rows_of_another_kind_than_the_work_asks_for_are_refused(any_store: ObjectStore) -> None:
    job = make_job(any_store, pace=PATIENT, signal={"kind": "topk", "k": 5}, evaluation=0)
    sink = job.sink()
    work = sink.take()
    assert work is not None
    with pytest.raises(RetryError, match=r"has rows of shape \(\d+, 8\), not \(\d+, 29\)"):
        sink.put(work, [rows_of(sequence) for sequence in work.sequences])
    job.close()


def test_the_head_comes_back_with_its_description(job: SignalJob) -> None:
    job.sink()
    head = job.source().head()
    assert head.description == some_head().description
    assert torch.equal(head.weight, some_head().weight)


def test_replicas_share_the_work_and_make_each_shard_once(job: SignalJob) -> None:
    sinks = [job.sink(name) for name in "abc"]
    with ThreadPoolExecutor(3) as pool:
        taken = list(pool.map(make_all, sinks))
    assert Counter(shard for shards in taken for shard in shards) == Counter(
        [("evaluation", 0), ("evaluation", 1), *(("train", i) for i in range(5)), ("task-topics", 0)]
    )


def test_of_two_writers_the_first_wins_and_all_read_the_same(job: SignalJob) -> None:
    first, second = job.sink("a"), job.sink("b")
    work = first.take()
    assert work is not None
    job.store.delete(work.token)
    again = second.take()
    assert again is not None
    assert (again.plan, again.shard) == (work.plan, work.shard)
    assert first.put(work, answer(work)) is True
    assert second.put(again, [rows + 5e-5 for rows in answer(again)]) is False
    assert len([key for key in objects(job, "/parts/") if key.startswith(work.token.split("/claims/")[0])]) == 1
    places = list(range(len(work.sequences)))
    for source in (job.source(), job.source(publishes=False)):
        assert_same(source.fetch(work.plan, places), answer(work))


def test_a_second_run_takes_nothing(job: SignalJob) -> None:
    assert len(make_all(job.sink())) == 8
    assert make_all(job.attempt(2).sink()) == []


def test_with_a_cache_parts_are_fetched_once_for_all_processes_of_the_node(job: SignalJob, tmp_path: Path) -> None:
    make_all(job.sink())
    first, second = job.source(cache=tmp_path), job.source(cache=tmp_path, publishes=False)
    assert_same(first.fetch("train", list(range(20))), all_rows(job))
    for key in objects(job, "/parts/"):
        job.store.delete(key)
    assert_same(second.fetch("train", list(range(20))), all_rows(job))


def test_the_cache_keeps_within_its_size_and_leaves_other_files_of_the_node_alone(
    any_store: ObjectStore, tmp_path: Path
) -> None:
    job = make_job(any_store, pace=PATIENT, training={"shuffle_window_shards": 1})
    make_all(job.sink())
    (tmp_path / "model.safetensors").write_bytes(b"somebody's model")
    largest = max(sum(shard.targets) for shard in job.plan().manifest.shards) * HIDDEN * 4
    capacity = 2 * largest
    source = job.source(cache=tmp_path, cache_bytes=capacity)
    for number in range(20):
        assert_same(source.fetch("train", [number]), all_rows(job)[number : number + 1])
        kept = [path.stat().st_size for path in (tmp_path / "signals").glob("*.safetensors")]
        assert 0 < sum(kept) <= capacity
    assert (tmp_path / "model.safetensors").read_bytes() == b"somebody's model"
    job.close()


def test_a_damaged_copy_in_the_cache_is_fetched_again_and_the_store_is_not_blamed(
    job: SignalJob, tmp_path: Path
) -> None:
    make_all(job.sink())
    job.source(cache=tmp_path).fetch("train", list(range(20)))
    copies = list((tmp_path / "signals").glob("*.safetensors"))
    assert len(copies) == 5
    for copy in copies:
        data = bytearray(copy.read_bytes())
        data[-1] ^= 1
        copy.write_bytes(bytes(data))
    assert_same(job.source(cache=tmp_path, publishes=False).fetch("train", list(range(20))), all_rows(job))
    assert objects(job, "/bad-") == []


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("asked", [[0], list(range(20))])
@pytest.mark.parametrize("kind", ["/parts/", "/manifest-"])
def test_a_flipped_byte_is_named_and_recomputed(
    job: SignalJob, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, asked: list[int], cached: bool
) -> None:
    make_all(job.sink())
    damaged = objects(job, kind)
    for key in damaged:
        # The first row of a part, a digit somewhere in a manifest.
        flip_a_byte(job.store, key, place=job.store.get(key).index(b"}") + 8 if kind == "/parts/" else 120)
    source = job.source(cache=tmp_path if cached else None, teachers=2)
    with ThreadPoolExecutor(1) as reading:
        fetched = reading.submit(source.fetch, "train", asked)
        wait_for(lambda: bool(objects(job, "/bad-0")))
        second = job.sink("b")
        while not fetched.done():
            make_all(second)
        assert_same(fetched.result(), [all_rows(job)[number] for number in asked])
    assert any(key in record.getMessage() for key in damaged for record in caplog.records)


def wait_for(condition, seconds: float = 30) -> None:
    ended = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        ended.wait(0.02)
    raise AssertionError("nothing happened")


@pytest.mark.parametrize("kept", [0, 50, -1])
def test_a_truncated_part_is_named_and_the_reader_asks_for_teachers(
    job: SignalJob, caplog: pytest.LogCaptureFixture, kept: int
) -> None:
    make_all(job.sink())
    for key in objects(job, "/parts/"):
        job.store.put(key, job.store.get(key)[:kept])
    with pytest.raises(RetryError) as ended:
        job.source(teachers=0).fetch("train", [0, 1, 2, 3])
    assert (ended.value.needs, ended.value.reason) == ("signals", "SignalsMissing")
    assert "/parts/" in caplog.text
    # An empty part shows in the listing; others are found by whoever reads them.
    assert missing_shards(job.store, job.config, job.prepared) == (1 if kept else 8)


def test_a_missing_part_is_named_and_recomputed(job: SignalJob, caplog: pytest.LogCaptureFixture) -> None:
    make_all(job.sink())
    for key in objects(job, "/parts/"):
        job.store.delete(key)
    with pytest.raises(RetryError, match="teachers must run again"):
        job.source(teachers=0).fetch("train", [1])
    assert "it is missing" in caplog.text
    assert len(make_all(job.attempt(2).sink())) == 8, "a teacher sees by itself that parts are missing"
    assert_same(job.source(teachers=0).fetch("train", [1]), [all_rows(job)[1]])


def test_a_manifest_of_another_shard_under_this_key_is_refused(
    job: SignalJob, caplog: pytest.LogCaptureFixture
) -> None:
    make_all(job.sink())
    one, other = (f"signals/{job.prepared.train_signal.digest}/{job.plan().manifest.shards[i].digest}" for i in (0, 1))
    for info in list(job.store.list(f"{other}/")):
        job.store.put(one + info.key.removeprefix(other), job.store.get(info.key))
    with pytest.raises(RetryError, match="teachers must run again"):
        job.source(teachers=0).fetch("train", [0])
    assert f"{one}/manifest-0.json is damaged: its shard is" in caplog.text
    make_all(job.attempt(2).sink())
    assert_same(job.source(teachers=0).fetch("train", [0]), [all_rows(job)[0]])


def damage_and_repair(job: SignalJob, *, times: int) -> None:
    for _ in range(times):
        make_all(job.sink())
        for key in objects(job, "/parts/"):
            flip_a_byte(job.store, key)
        with pytest.raises(RetryError, match="teachers must run again"):
            job.source(teachers=0).fetch("train", [3])


def test_a_store_that_never_keeps_what_is_written_ends_the_run(job: SignalJob) -> None:
    with pytest.raises(RetryError) as ended:
        damage_and_repair(job, times=GENERATIONS + 1)
    assert ended.value.reason == "StoreCorrupt"


def test_a_damaged_head_is_named_and_published_again_by_the_next_attempt(
    job: SignalJob, caplog: pytest.LogCaptureFixture
) -> None:
    make_all(job.sink())
    (key,) = [info.key for info in job.store.list(f"{head_folder(job.prepared)}/parts/")]
    flip_a_byte(job.store, key)
    with pytest.raises(RetryError) as ended:
        job.source().head()
    assert ended.value.needs == "signals"
    assert key in caplog.text
    assert missing_shards(job.store, job.config, job.prepared) == 1
    job.attempt(2).sink()
    assert torch.equal(job.source().head().weight, some_head().weight)


def test_an_error_marker_ends_a_waiting_reader_at_once(job: SignalJob) -> None:
    sink, source = job.sink(), job.source()
    work = sink.take()
    assert work is not None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(source.fetch, work.plan, [0])
        sink.fail(work, "sequence 2 gives states that aren't finite.")
        with pytest.raises(UserError, match=r"sequence 2 gives states.*error-0\.json"):
            waiting.result(timeout=30)
    assert (work.plan, work.shard) not in make_all(sink), "a failed shard isn't tried again"


def test_rows_that_are_not_finite_are_refused_and_can_be_marked(job: SignalJob) -> None:
    sink = job.sink()
    work = sink.take()
    assert work is not None
    rows = answer(work)
    rows[1][0, 0] = float("nan")
    with pytest.raises(RetryError, match="sequence 1 of shard 0 of plan evaluation") as refused:
        sink.put(work, rows)
    assert refused.value.reason == "SignalRefused"
    sink.fail(work, str(refused.value))
    assert objects(job, "/claims/") == []


def test_use_is_noted_once_a_job(job: SignalJob) -> None:
    make_all(job.sink())
    job.source()
    assert objects(job, "/uses/") == [f"signals/{job.prepared.train_signal.digest}/uses/job-1.json"]
