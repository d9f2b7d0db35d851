"""What names a signal."""

import pytest

from distill_runtime.contract.sections import Signal
from distill_runtime.signals.addresses import folder_of, plan_references, signal_digest, signal_root
from tests.fixtures.memory_store import MemoryStore
from tests.fixtures.signal_jobs import TEACHER, make_job


def keys_of(job: object, plan: str = "train") -> list[str]:
    from tests.fixtures.signal_jobs import SignalJob

    assert isinstance(job, SignalJob)
    root = signal_root(job.config, job.prepared, plan)
    return [f"{root}/{shard.digest}" for shard in job.plan(plan).manifest.shards]


def test_seed_batch_packing_and_length_of_the_training_do_not_change_keys() -> None:
    store = MemoryStore()
    one = keys_of(make_job(store))
    settings = {"seed": 5, "global_batch": 7, "packing": False, "epochs": 3, "micro_batch": 1, "zero_stage": 0}
    assert keys_of(make_job(store, training=settings, uid="job-2", training_digest="tr2")) == one


def test_mode_lease_and_watermark_are_not_part_of_the_digest() -> None:
    digest = signal_digest(TEACHER, "float32", Signal())
    other = Signal(mode="streaming", lease_seconds=5, watermark_bytes=7, shard_sequences=3)
    assert signal_digest(TEACHER, "float32", other) == digest


def test_teacher_its_precision_and_the_stored_precision_change_the_digest() -> None:
    digests = {
        signal_digest(TEACHER, "float32", Signal()),
        signal_digest("ab" * 32, "float32", Signal()),
        signal_digest(TEACHER, "bfloat16", Signal()),
        signal_digest(TEACHER, "float32", Signal(dtype="float32")),
    }
    assert len(digests) == 4


def test_a_shard_of_the_same_sequences_has_the_same_key_in_another_plan() -> None:
    store = MemoryStore()
    whole = keys_of(make_job(store, sequences=8))
    assert keys_of(make_job(store, sequences=12))[:2] == whole


def test_streaming_training_signals_are_the_trainings_own_and_the_rest_is_shared() -> None:
    store = MemoryStore()
    kept, streamed = make_job(store), make_job(store, signal={"mode": "streaming"})
    assert keys_of(streamed) == [f"trainings/tr1/{key}" for key in keys_of(kept)]
    for plan in ("evaluation", "task-topics"):
        assert keys_of(streamed, plan) == keys_of(kept, plan)


def test_plans_are_named_in_the_order_of_need() -> None:
    assert list(plan_references(make_job(MemoryStore()).prepared)) == ["evaluation", "train", "task-topics"]


@pytest.mark.parametrize(
    ("key", "folder"),
    [
        (f"signals/x/{'a' * 64}/parts/1.safetensors", f"signals/x/{'a' * 64}"),
        ("signals/x/uses/job-1.json", None),
        (f"signals/x/{'a' * 64}", None),
    ],
)
def test_only_keys_below_a_shards_folder_belong_to_a_shard(key: str, folder: str | None) -> None:
    assert folder_of("signals/x", key) == folder
