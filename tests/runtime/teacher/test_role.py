"""`python -m distill_runtime.teacher` on a prepared job in a directory store."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from distill_runtime import layout
from distill_runtime.contract import environment
from distill_runtime.contract.facts import TeacherFacts
from distill_runtime.data.plan import Plan
from distill_runtime.models import resolve_model
from distill_runtime.signals.addresses import plan_references, signal_of, stored_signal
from distill_runtime.signals.row_format import held_out_row, training_row
from distill_runtime.signals.shards import list_states
from distill_runtime.store.directory import DirectoryStore
from distill_runtime.teacher.canary import canary_key
from distill_runtime.teacher.transformers_engine import TransformersEngine
from tests.fixtures.families import save_family
from tests.fixtures.models import tiny_tokenizer
from tests.fixtures.signal_jobs import SignalJob, make_job

HIDDEN_SIZE = 128
"""That of `save_family`."""
WITHOUT_VLLM = (
    "import sys; from distill_runtime.process import read_run_config; "
    "from distill_runtime.teacher.worker import run_teacher; "
    "facts = run_teacher(read_run_config()); assert 'vllm' not in sys.modules; print(dict(facts))"
)


def _prepare(folder: Path, *, engine: str = "vllm", **options: Any) -> SignalJob:
    """A job whose teacher is a tiny model in `folder`, ready for the role."""
    store = DirectoryStore(folder / "store")
    model = save_family(folder / "teacher", "LlamaForCausalLM")
    job = make_job(store, **options)
    storage = job.config.work.storage
    pin = resolve_model(f"file://{model}", storage, cache=folder / "cache").pin
    teacher = job.config.work.teacher.model_copy(
        update={"model": f"file://{model}", "gpus": 0, "engine": engine, "max_batch_tokens": 64}
    )
    work = job.config.work.model_copy(update={"teacher": teacher})
    prepared = job.prepared.model_copy(
        update={
            "teacher": pin,
            "vocabulary": len(tiny_tokenizer()),
            "train_signal": stored_signal(
                pin.digest, "float32", training_row(work, hidden_size=HIDDEN_SIZE, vocabulary=len(tiny_tokenizer()))
            ),
            "held_out_signal": stored_signal(pin.digest, "float32", held_out_row(work, hidden_size=HIDDEN_SIZE)),
            "teacher_canary": tiny_tokenizer()("the capital of france is paris.")["input_ids"],
        }
    )
    config = job.config.model_copy(update={"work": work})
    store.put(layout.prepared_key(config), prepared.model_dump_json().encode())
    (folder / "run.json").write_text(config.model_dump_json(by_alias=True))
    return dataclasses.replace(job, config=config, prepared=prepared)


def _start(folder: Path, replica: str, *command: str) -> "subprocess.Popen[str]":
    state = folder / replica
    state.mkdir()
    variables = {
        environment.RUN_CONFIG: str(folder / "run.json"),
        environment.STATE_DIR: str(state),
        environment.CACHE_DIR: str(folder / "cache"),
        environment.REPLICA: replica,
    }
    with (state / "log").open("w") as output:
        return subprocess.Popen(
            [sys.executable, *(command or ("-m", "distill_runtime.teacher"))],
            env={**os.environ, **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )


def _end(process: "subprocess.Popen[str]", folder: Path, replica: str) -> tuple[int, dict[str, Any]]:
    try:
        code = process.wait(timeout=300)
    finally:
        process.kill()
    outcome = folder / replica / "outcome.json"
    return code, json.loads(outcome.read_text()) if outcome.exists() else {}


def _ready_shards(job: SignalJob) -> int:
    roots = {layout.signal_key(signal_of(job.prepared, plan).digest) for plan in plan_references(job.prepared)}
    return sum(state.status == "ready" for root in roots for state in list_states(job.store, root).values())


def _log(folder: Path, replica: str) -> str:
    return (folder / replica / "log").read_text()[-4000:]


def test_a_teacher_writes_all_signals_and_the_next_one_starts_no_engine(tmp_path: Path) -> None:
    job = _prepare(tmp_path)
    code, outcome = _end(_start(tmp_path, "teacher-0"), tmp_path, "teacher-0")
    assert code == 0, _log(tmp_path, "teacher-0")
    plans = {name: Plan(job.store, reference) for name, reference in plan_references(job.prepared).items()}
    assert outcome["facts"]["shardsWritten"] == sum(len(plan.shard_sizes) for plan in plans.values())
    assert outcome["facts"]["tokens"] == sum(int(plan.lengths.sum()) for plan in plans.values())
    assert job.store.exists(canary_key(job.prepared))
    assert _ready_shards(job) == outcome["facts"]["shardsWritten"]
    found = TeacherFacts.read(outcome["facts"])
    assert (found.shards, found.shards_done, found.shards_reused) == (found.shards_written, found.shards_written, 0)

    engine = TransformersEngine(tmp_path / "teacher", dtype="float32", gpus=0, max_batch_tokens=64)
    source = job.source(teachers=0)
    for name, plan in plans.items():
        for number, rows in enumerate(source.fetch(name, list(range(len(plan))))):
            sequence = plan.sequence(number)
            states = engine.hidden_states([sequence.ids.tolist()])[0]
            torch.testing.assert_close(rows, states[torch.from_numpy(sequence.signal_positions)], atol=1e-4, rtol=1e-4)
    assert source.head().weight.shape == (len(tiny_tokenizer()), 128)
    job.close()

    code, _ = _end(_start(tmp_path, "teacher-1", "-c", WITHOUT_VLLM), tmp_path, "teacher-1")
    assert code == 0, _log(tmp_path, "teacher-1")
    said = _log(tmp_path, "teacher-1")
    assert "'shardsWritten': 0" in said
    assert f"'shardsReused': {found.shards}" in said


def test_sigterm_ends_a_teacher_with_143_and_another_one_finishes(tmp_path: Path) -> None:
    job = _prepare(tmp_path, engine="transformers", sequences=400, shard_sequences=1)
    process = _start(tmp_path, "teacher-0")
    try:
        progress = tmp_path / "teacher-0" / "progress.json"
        deadline = time.monotonic() + 120
        while not (progress.exists() and json.loads(progress.read_text())["stage"] == "signals"):
            assert process.poll() is None, _log(tmp_path, "teacher-0")
            assert time.monotonic() < deadline, _log(tmp_path, "teacher-0")
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        code, outcome = _end(process, tmp_path, "teacher-0")
    finally:
        process.kill()
    assert code == 143, _log(tmp_path, "teacher-0")
    assert (outcome["reason"], outcome["role"]) == ("Checkpointed", "teacher")
    code, outcome = _end(_start(tmp_path, "teacher-1"), tmp_path, "teacher-1")
    assert code == 0, _log(tmp_path, "teacher-1")
    assert 0 < outcome["facts"]["shardsWritten"] < 408
    source = job.source(teachers=0)
    assert len(source.fetch("train", list(range(400)))) == 400
    job.close()


def test_a_replica_that_fails_the_canary_takes_no_work(tmp_path: Path) -> None:
    job = _prepare(tmp_path, engine="transformers")
    canary = job.prepared.teacher_canary
    engine = TransformersEngine(tmp_path / "teacher", dtype="float32", gpus=0, max_batch_tokens=64)
    wrong = engine.hidden_states([canary])[0].roll(1, 0).contiguous()
    answer = {"hidden_states": wrong, "log_likelihood": torch.tensor([-6.0], dtype=torch.float64)}
    job.store.put(canary_key(job.prepared), save(answer))
    code, outcome = _end(_start(tmp_path, "teacher-7"), tmp_path, "teacher-7")
    assert code == 75
    assert outcome["reason"] == "CanaryFailed"
    assert "teacher replica teacher-7 failed the canary" in outcome["message"]
    assert _ready_shards(job) == 0


def test_a_teacher_whose_files_changed_is_refused(tmp_path: Path) -> None:
    _prepare(tmp_path, engine="transformers")
    path = tmp_path / "teacher" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    code, outcome = _end(_start(tmp_path, "teacher-0"), tmp_path, "teacher-0")
    assert code == 65
    assert outcome["reason"] == "ModelChanged"


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_gpus_that_are_not_there_are_named(engine: str, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    job = _prepare(tmp_path, engine=engine)
    teacher = job.config.work.teacher.model_copy(update={"gpus": 1})
    config = job.config.model_copy(update={"work": job.config.work.model_copy(update={"teacher": teacher})})
    (tmp_path / "run.json").write_text(config.model_dump_json(by_alias=True))
    code, outcome = _end(_start(tmp_path, "teacher-0"), tmp_path, "teacher-0")
    assert code == 65
    assert "set teacher.gpus to 0" in outcome["message"]


def test_a_replica_that_others_leave_nothing_to_do_says_that_it_waits(tmp_path: Path) -> None:
    job = _prepare(tmp_path, engine="transformers", sequences=4, shard_sequences=4)
    other = job.sink("other")
    plans = [Plan(job.store, reference) for reference in plan_references(job.prepared).values()]
    for _ in range(sum(len(plan.shard_sizes) for plan in plans)):
        assert other.take() is not None
    process = _start(tmp_path, "teacher-0")
    try:
        progress = tmp_path / "teacher-0" / "progress.json"
        deadline = time.monotonic() + 120
        while not (progress.exists() and json.loads(progress.read_text())["stage"] == "wait"):
            assert process.poll() is None, _log(tmp_path, "teacher-0")
            assert time.monotonic() < deadline, _log(tmp_path, "teacher-0")
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
        job.close()


def test_a_teacher_that_is_told_more_writes_the_states_of_its_own_prompt(tmp_path: Path) -> None:
    job = _prepare(tmp_path, engine="transformers", teacher_context=9)
    code, outcome = _end(_start(tmp_path, "teacher-0"), tmp_path, "teacher-0")
    assert code == 0, _log(tmp_path, "teacher-0")
    plans = {name: Plan(job.store, reference) for name, reference in plan_references(job.prepared).items()}
    read = [plan.sequence(number).for_teacher.length for plan in plans.values() for number in range(len(plan))]
    assert outcome["facts"]["tokens"] == sum(read)
    assert sum(read) > sum(int(plan.lengths.sum()) for plan in plans.values())

    engine = TransformersEngine(tmp_path / "teacher", dtype="float32", gpus=0, max_batch_tokens=64)
    source = job.source(teachers=0)
    told_more = 0
    for name, plan in plans.items():
        for number, rows in enumerate(source.fetch(name, list(range(len(plan))))):
            sequence = plan.sequence(number)
            teacher = sequence.for_teacher
            states = engine.hidden_states([teacher.ids.tolist()])[0][torch.from_numpy(teacher.targets - 1)]
            torch.testing.assert_close(rows, states, atol=1e-4, rtol=1e-4)
            if sequence.teacher is not None:
                told_more += 1
                without = engine.hidden_states([sequence.ids.tolist()])[0][torch.from_numpy(sequence.targets - 1)]
                assert (rows - without).abs().max() > 0.1
    assert told_more >= 10
    job.close()
