import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from distill_runtime.digests import digest_of_bytes
from distill_runtime.store.directory import DirectoryStore
from distill_runtime.student.checkpoints import (
    RANDOM,
    CheckpointManifest,
    CheckpointPart,
    Position,
    newest_whole,
    read_tensors,
)
from distill_runtime.student.fence import CheckpointEntry


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


def write(store: DirectoryStore, step: int) -> CheckpointEntry:
    parts: list[CheckpointPart] = []
    for number in range(2):
        data = save({f"{name}{number}:weight": torch.full((2,), float(step)) for name in "zyxab"})
        key = f"step-{step}/{number}"
        store.put(key, data)
        parts.append(CheckpointPart(key=key, sha256=digest_of_bytes(data), size=len(data)))
    manifest = CheckpointManifest(position=Position(step=step), attempt=1, parts=parts, probe_loss=1.0)
    data = manifest.model_dump_json().encode()
    store.put(f"step-{step}/manifest", data)
    return CheckpointEntry(step=step, manifest=f"step-{step}/manifest", sha256=digest_of_bytes(data))


def flip(store: DirectoryStore, key: str) -> None:
    data = bytearray(store.get(key))
    data[-1] ^= 1
    store.put(key, bytes(data))


def test_the_newest_checkpoint_is_chosen(store: DirectoryStore) -> None:
    entries = [write(store, step) for step in (1, 2, 3)]
    manifest, useless = newest_whole(store, entries)
    assert manifest is not None
    assert manifest.position.step == 3
    assert useless == []


@pytest.mark.parametrize("object_", ["manifest", "0", "1"])
@pytest.mark.parametrize("missing", [True, False])
def test_a_damaged_one_is_named_and_the_one_before_is_used(
    store: DirectoryStore, caplog: pytest.LogCaptureFixture, object_: str, missing: bool
) -> None:
    entries = [write(store, step) for step in (1, 2, 3)]
    key = f"step-3/{object_}"
    store.delete(key) if missing else flip(store, key)
    with caplog.at_level(logging.WARNING):
        manifest, useless = newest_whole(store, entries)
    assert manifest is not None
    assert manifest.position.step == 2
    assert useless == [entries[2]]
    assert key in caplog.text


def test_without_a_whole_one_there_is_none(store: DirectoryStore) -> None:
    entries = [write(store, step) for step in (1, 2)]
    for step in (1, 2):
        flip(store, f"step-{step}/0")
    manifest, useless = newest_whole(store, entries)
    assert manifest is None
    assert {entry.step for entry in useless} == {1, 2}


def test_lost_best_weights_are_made_again_from_a_checkpoint_before_them(store: DirectoryStore) -> None:
    best = write(store, 2)
    entries = [write(store, 1), best, write(store, 3), write(store, 4)]
    flip(store, "step-2/1")
    manifest, useless = newest_whole(store, entries, best)
    assert manifest is not None
    assert manifest.position.step == 1
    assert {entry.step for entry in useless} == {2, 3, 4}


def test_tensors_come_in_one_order_in_every_process(store: DirectoryStore) -> None:
    """With ZeRO-3 each one is a collective; safetensors itself has no order."""
    manifest, _ = newest_whole(store, [write(store, 1)])
    assert manifest is not None
    names = [name for name, _, _ in read_tensors(store, manifest)]
    assert names == [f"{name}{number}" for number in range(2) for name in "abxyz"]


def test_the_random_state_comes_back(store: DirectoryStore) -> None:
    torch.manual_seed(7)
    data = save({RANDOM: torch.get_rng_state()})
    wanted = torch.rand(3)
    store.put("random", data)
    part = CheckpointPart(key="random", sha256=digest_of_bytes(data), size=len(data))
    manifest = CheckpointManifest(position=Position(), attempt=1, parts=[part], probe_loss=1.0)
    assert list(read_tensors(store, manifest)) == []
    assert torch.equal(torch.rand(3), wanted)
