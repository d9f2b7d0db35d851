"""A replica whose states can't be trusted is refused before it takes work."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from distill_runtime.errors import RetryError
from distill_runtime.prepared import ModelPin, PlanReference, Prepared
from distill_runtime.signals.head import OutputHead
from distill_runtime.signals.head_source import read_head
from distill_runtime.teacher.canary import canary_key, check_canary, neighbours
from distill_runtime.teacher.engine import TeacherEngine
from distill_runtime.teacher.transformers_engine import TransformersEngine
from tests.fixtures.memory_store import MemoryStore
from tests.fixtures.models import save_tiny_model, tiny_tokenizer
from tests.fixtures.signals import hidden_signal

TEXT = "the capital of france is paris. two and two are four, and my card has not arrived yet."
LONGEST = 128


def _prepared(canary: list[int], vocabulary: int) -> Prepared:
    plan = PlanReference(key="plans/p", data_digest="d", shards=1, sequences=1, tokens=2, targets=1)
    pin = ModelPin(uri="file:///teacher", digest="7ea0")
    return Prepared(
        fingerprint="f",
        train=plan,
        evaluation=None,
        tasks=[],
        teacher=pin,
        teacher_dtype="float32",
        student=pin,
        training_precision="float32",
        vocabulary=vocabulary,
        train_signal=hidden_signal("s", 64),
        held_out_signal=hidden_signal("s", 64),
        teacher_canary=canary,
        total_steps=1,
        training_digest="t",
        report={},
    )


def _tiny_prepared() -> Prepared:
    tokenizer = tiny_tokenizer()
    return _prepared(tokenizer(TEXT)["input_ids"], len(tokenizer))


class _ChangedEngine(TeacherEngine):
    """An engine whose answers are changed on their way out."""

    def __init__(self, engine: TeacherEngine, change: Callable[[list[torch.Tensor]], list[torch.Tensor]]) -> None:
        self._engine = engine
        self._change = change

    def hidden_states(self, sequences: list[list[int]]) -> list[torch.Tensor]:
        return self._change(self._engine.hidden_states(sequences))

    def close(self) -> None:
        self._engine.close()


def _engine(folder: Path) -> TransformersEngine:
    return TransformersEngine(folder, dtype="float32", gpus=0, max_batch_tokens=512)


def _check(
    engine: TeacherEngine, head: OutputHead, store: MemoryStore, prepared: Prepared, replica: str = "teacher-1"
) -> None:
    check_canary(engine, head, prepared, store, replica=replica, longest=LONGEST)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("teacher"))


def test_the_first_replica_stores_its_answer_and_the_second_agrees(teacher: Path) -> None:
    store, prepared = MemoryStore(), _tiny_prepared()
    head = read_head(teacher, prepared.vocabulary)
    first = check_canary(_engine(teacher), head, prepared, store, replica="teacher-0", longest=LONGEST)
    assert list(store.objects) == [canary_key(prepared)]
    stored = store.objects[canary_key(prepared)]
    second = check_canary(_engine(teacher), head, prepared, store, replica="teacher-1", longest=LONGEST)
    assert store.objects[canary_key(prepared)] == stored
    assert first.batched < 1e-5
    assert second.stored < 1e-5


def test_a_replica_with_other_weights_is_refused_by_name(teacher: Path, tmp_path: Path) -> None:
    store, prepared = MemoryStore(), _tiny_prepared()
    head = read_head(teacher, prepared.vocabulary)
    _check(_engine(teacher), head, store, prepared, "teacher-0")
    shutil.copytree(teacher, tmp_path / "other")
    tensors = load_file(teacher / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] *= 1.05
    save_file(tensors, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
    other = _engine(tmp_path / "other")
    with pytest.raises(RetryError, match=r"teacher replica teacher-1 failed the canary.*first replica's by") as caught:
        _check(other, head, store, prepared)
    assert caught.value.reason == "CanaryFailed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda states: states[1:] + states[:1], r"answered \d+ tokens with \d+ states inside a batch"),
        (lambda states: [rows.roll(1, 0) for rows in states] if len(states) > 1 else states, "inside a batch differ"),
        (lambda states: [rows.index_fill(0, torch.tensor([0]), float("nan")) for rows in states], "not finite"),
        (lambda states: [rows / rows.norm(dim=-1, keepdim=True) for rows in states], "first replica's"),
    ],
    ids=["rows of another sequence", "rows of another position", "not finite", "normalised rows"],
)
def test_states_that_are_not_the_ones_asked_for_are_refused(
    change: Callable[[list[torch.Tensor]], list[torch.Tensor]], message: str, teacher: Path
) -> None:
    store, prepared = MemoryStore(), _tiny_prepared()
    head = read_head(teacher, prepared.vocabulary)
    engine = _engine(teacher)
    _check(engine, head, store, prepared, "teacher-0")
    with pytest.raises(RetryError, match=message) as caught:
        _check(_ChangedEngine(engine, change), head, store, prepared)
    assert caught.value.reason == "CanaryFailed"


def test_a_head_without_its_scale_or_softcap_is_seen_by_the_next_replica(tmp_path: Path) -> None:
    prepared = _tiny_prepared()
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("gemma2", {"final_logit_softcapping": 1.0}, {"softcap": None}),
        ("granite", {"logits_scaling": 4.0}, {"scale": 1.0}),
    ]
    for family, options, wrong in cases:
        store = MemoryStore()
        folder = save_tiny_model(tmp_path / family, family, **options)
        head, engine = read_head(folder, prepared.vocabulary), _engine(folder)
        _check(engine, head, store, prepared, "teacher-0")
        forgotten = dataclasses.replace(head, description=head.description.model_copy(update=wrong))
        with pytest.raises(RetryError, match="nats a token under its output head"):
            _check(engine, forgotten, store, prepared)


@pytest.mark.parametrize("wrong", ["permuted", "unscaled"])
def test_a_real_models_wrong_head_is_refused_by_the_first_replica(wrong: str, smollm2_folder: Path) -> None:
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(smollm2_folder)("The capital of France is Paris.")["input_ids"]
    prepared = _prepared(ids, 49152)
    head, engine = read_head(smollm2_folder, 49152), _engine(smollm2_folder)
    _check(engine, head, MemoryStore(), prepared)
    if wrong == "permuted":
        order = torch.randperm(49152, generator=torch.Generator().manual_seed(0))
        head = dataclasses.replace(head, weight=head.weight[order])
    else:  # As if Cohere's logit_scale of 1/16 were forgotten.
        head = dataclasses.replace(head, description=head.description.model_copy(update={"scale": 16.0}))
        ids = ids[::-1]
        prepared = _prepared(ids, 49152)
    with pytest.raises(RetryError, match="states and head don't belong together"):
        _check(engine, head, MemoryStore(), prepared)


def test_a_damaged_stored_answer_is_named(teacher: Path) -> None:
    store, prepared = MemoryStore(), _tiny_prepared()
    store.put(canary_key(prepared), b"not safetensors")
    with pytest.raises(RetryError, match=r"canary-float32-.*can't be read.*delete it"):
        _check(_engine(teacher), read_head(teacher, prepared.vocabulary), store, prepared)


def test_the_neighbours_differ_in_length_and_fit_the_engine() -> None:
    canary = list(range(20))
    for longest in (20, 64, 4096):
        lengths = [len(ids) for ids in neighbours(canary, longest)]
        assert max(lengths) <= longest
        assert len(set(lengths)) >= 3
        assert canary not in neighbours(canary, longest)


@pytest.mark.parametrize("canary", [[], [5], [5, 100_000]])
def test_a_canary_that_is_no_text_is_sent_back_to_prepare(canary: list[int], teacher: Path) -> None:
    prepared = _prepared(canary, len(tiny_tokenizer()))
    with pytest.raises(RetryError, match="run prepare again"):
        _check(_engine(teacher), read_head(teacher, prepared.vocabulary), MemoryStore(), prepared)
