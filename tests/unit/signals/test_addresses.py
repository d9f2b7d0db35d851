"""What names a signal."""

from typing import Any

import pytest

from distill_runtime.contract.sections import Signal
from distill_runtime.signals.addresses import folder_of, plan_references, signal_bytes, signal_root, stored_signal
from distill_runtime.signals.row_format import training_row
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


def digest(
    signal: dict[str, Any], *, teacher: str = TEACHER, precision: str = "float32", temperature: float = 1
) -> str:
    """Of the training data's signals."""
    job = make_job(MemoryStore()).config.work
    work = job.model_copy(
        update={"signal": Signal(**signal), "objective": job.objective.model_copy(update={"temperature": temperature})}
    )
    return stored_signal(teacher, precision, training_row(work, hidden_size=8, vocabulary=33)).digest


@pytest.mark.parametrize("kind", ["hidden", "topk", "sampled"])
def test_mode_lease_and_watermark_are_not_part_of_the_digest(kind: str) -> None:
    other = {"mode": "streaming", "lease_seconds": 5, "watermark_bytes": 7, "shard_sequences": 3}
    assert digest({"kind": kind, **other}) == digest({"kind": kind})


@pytest.mark.parametrize("kind", ["hidden", "topk", "sampled"])
def test_teacher_its_precision_and_the_stored_precision_change_the_digest(kind: str) -> None:
    digests = [
        digest({"kind": kind}),
        digest({"kind": kind}, teacher="ab" * 32),
        digest({"kind": kind}, precision="bfloat16"),
        digest({"kind": kind, "dtype": "float32"}),
    ]
    # Draws are ids: there is nothing whose precision could differ.
    assert len(set(digests)) == (3 if kind == "sampled" else 4)


def test_a_precision_that_is_named_is_the_same_as_the_one_that_auto_takes() -> None:
    assert digest({"dtype": "bfloat16"}) == digest({})
    assert digest({"kind": "topk", "dtype": "float16"}) == digest({"kind": "topk"})


@pytest.mark.parametrize(
    ("kind", "changes", "changed"),
    [
        ("hidden", {"k": 5, "samples": 5}, False),
        ("topk", {"k": 5}, True),
        ("topk", {"samples": 5}, False),
        ("sampled", {"samples": 5}, True),
        ("sampled", {"k": 5}, False),
    ],
)
def test_only_what_a_kind_uses_is_part_of_its_digest(kind: str, changes: dict[str, int], changed: bool) -> None:
    assert (digest({"kind": kind, **changes}) != digest({"kind": kind})) is changed


@pytest.mark.parametrize("kind", ["hidden", "topk", "sampled"])
def test_the_temperature_changes_signals_that_are_behind_the_head(kind: str) -> None:
    assert (digest({"kind": kind}, temperature=2) != digest({"kind": kind})) is (kind != "hidden")


@pytest.mark.parametrize("kind", ["topk", "sampled"])
def test_held_out_data_and_tasks_share_their_hidden_states_with_other_kinds(kind: str) -> None:
    store = MemoryStore()
    hidden, compact = make_job(store), make_job(store, signal={"kind": kind, "k": 5}, uid="job-2")
    for plan in ("evaluation", "task-topics"):
        assert keys_of(compact, plan) == keys_of(hidden, plan)
    assert not set(keys_of(compact)) & set(keys_of(hidden))


def test_bytes_of_a_job_are_those_of_each_plans_own_kind() -> None:
    job = make_job(MemoryStore(), signal={"kind": "topk", "k": 5, "dtype": "auto"})
    targets = {name: reference.targets for name, reference in plan_references(job.prepared).items()}
    # Ids of a vocabulary of 33 take one byte, states of 8 values 16.
    train = targets.pop("train") * (5 * (1 + 2) + 2)
    assert signal_bytes(job.prepared) == train + sum(targets.values()) * 16


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
