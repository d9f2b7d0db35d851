"""The plan: tokenised sequences in the store, in shards, under the digest of what made them.

plans/<digest>/parts/<sha256>.safetensors   ids, target_mask, offsets and row numbers of one shard; where a teacher
                                            reads other ids, teacher_ids, teacher_target_mask, teacher_offsets too
plans/<digest>/manifest.json                written last: a plan without it does not exist
"""

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors.numpy import load, save

from distill_runtime.data.sequence import Sequence
from distill_runtime.digests import digest_of_bytes
from distill_runtime.errors import RetryError
from distill_runtime.prepared import PlanReference, Record, SourceCounts
from distill_runtime.store.base import ObjectCorrupt, ObjectMissing, ObjectStore

PLAN_VERSION = 2
"""Part of every plan's digest: raised when the same inputs would give another plan."""
SHARDS_HELD = 64
"""Decoded shards that one reader keeps in memory."""

log = logging.getLogger(__name__)


class PlanShard(Record):
    """One shard of a plan."""

    key: str
    sha256: str
    digest: str
    """Digest of what the teacher reads of its sequences, alone: what names the shard's signals."""
    lengths: list[int]
    """Tokens of each sequence."""
    targets: list[int]
    """Targets of each sequence."""
    teacher_lengths: list[int] = Field(default=[])
    """Tokens of what the teacher reads of each sequence; empty where those are `lengths`."""

    @property
    def read_by_teacher(self) -> list[int]:
        """Tokens of what the teacher reads of each sequence."""
        return self.teacher_lengths or self.lengths


class PlanManifest(Record):
    """All shards of a plan."""

    version: int = PLAN_VERSION
    data_digest: str
    shards: list[PlanShard]
    report: dict[str, int | float | str] = Field(default={})
    """Counts of rows read, dropped, truncated, bad."""
    sources: list[SourceCounts] = Field(default=[])
    """Counts of each source of training or held-out data, in the order of the data."""


def write_plan(
    store: ObjectStore,
    key: str,
    sequences: Iterable[tuple[int, Sequence]],
    *,
    shard_sequences: int,
    report: dict[str, int | float | str] | None = None,
    sources: list[SourceCounts] | None = None,
) -> PlanReference:
    """Writes sequences, each with the number of its row, as a plan. `report` and `sources` are read after the last
    sequence."""
    shards: list[PlanShard] = []
    whole = hashlib.sha256()
    for block in _blocks(sequences, shard_sequences):
        data = _encode(block)
        sha256 = digest_of_bytes(data)
        part = f"{key}/parts/{sha256}.safetensors"
        store.put(part, data)
        content = hashlib.sha256()
        for _, sequence in block:
            content.update(bytes.fromhex(sequence.for_teacher.digest))
            whole.update(bytes.fromhex(sequence.digest))
        shards.append(
            PlanShard(
                key=part,
                sha256=sha256,
                digest=content.hexdigest(),
                lengths=[sequence.length for _, sequence in block],
                targets=[len(sequence.targets) for _, sequence in block],
                teacher_lengths=_teacher_lengths(block),
            )
        )
    manifest = PlanManifest(data_digest=whole.hexdigest(), shards=shards, report=report or {}, sources=sources or [])
    store.put(f"{key}/manifest.json", manifest.model_dump_json().encode())
    return reference_to(key, manifest)


def read_manifest(store: ObjectStore, key: str) -> PlanManifest | None:
    """The manifest of the plan under this key; None where there is no whole plan, or its manifest is damaged: then
    `prepare` makes it again."""
    try:
        return PlanManifest.model_validate_json(store.get(f"{key}/manifest.json"))
    except ObjectMissing:
        return None
    except ValidationError:
        log.warning("%s/%s/manifest.json is damaged", store.uri, key)
        return None


def reference_to(key: str, manifest: PlanManifest) -> PlanReference:
    """The numbers of a plan."""
    return PlanReference(
        key=key,
        data_digest=manifest.data_digest,
        shards=len(manifest.shards),
        sequences=sum(len(shard.lengths) for shard in manifest.shards),
        tokens=sum(sum(shard.lengths) for shard in manifest.shards),
        targets=sum(sum(shard.targets) for shard in manifest.shards),
    )


class Plan:
    """A plan, read shard by shard. May be used from several threads."""

    def __init__(self, store: ObjectStore, reference: PlanReference) -> None:
        manifest = read_manifest(store, reference.key)
        if manifest is None or manifest.data_digest != reference.data_digest:
            raise RetryError(
                f"the plan {store.uri}/{reference.key} is gone or was replaced: run prepare again.",
                reason="NotPrepared",
            )
        self.manifest = manifest
        self.reference = reference
        self.shard_sizes: list[int] = [len(shard.lengths) for shard in manifest.shards]
        self.lengths: NDArray[np.int64] = np.array([n for s in manifest.shards for n in s.lengths], dtype=np.int64)
        """Tokens of each sequence. [sequences]"""
        self.target_counts: NDArray[np.int64] = np.array(
            [n for s in manifest.shards for n in s.targets], dtype=np.int64
        )
        """Targets of each sequence. [sequences]"""
        self.longest_for_teacher: int = max(n for s in manifest.shards for n in s.read_by_teacher)
        """Tokens of the longest sequence as the teacher reads it."""
        self._starts = np.concatenate([[0], np.cumsum(self.shard_sizes)])
        self._store = store
        self._held: OrderedDict[int, list[Sequence]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.lengths)

    def shard_of(self, sequence: int) -> tuple[int, int]:
        """The shard of a sequence, and its place in the shard."""
        shard = int(np.searchsorted(self._starts, sequence, side="right")) - 1
        return shard, sequence - int(self._starts[shard])

    def first_sequence(self, shard: int) -> int:
        """Number of the first sequence of a shard."""
        return int(self._starts[shard])

    def shard(self, index: int) -> list[Sequence]:
        """The sequences of a shard, checked against their digest.

        Raises
        ------
        RetryError
            The object is missing or corrupt; the sentence names it.
        """
        with self._lock:
            if index in self._held:
                self._held.move_to_end(index)
                return self._held[index]
        described = self.manifest.shards[index]
        try:
            sequences = list(_decode(self._store.get_verified(described.key, described.sha256)))
        except (ObjectMissing, ObjectCorrupt) as error:
            # Without its manifest the plan is made again from the data by the next prepare.
            self._store.delete(f"{self.reference.key}/manifest.json")
            raise RetryError(f"the plan lost a shard ({error}): run prepare again.", reason="PlanCorrupt") from error
        with self._lock:
            self._held[index] = sequences
            if len(self._held) > SHARDS_HELD:
                self._held.popitem(last=False)
        return sequences

    def sequence(self, number: int) -> Sequence:
        """One sequence, by its number in the order of the data."""
        shard, place = self.shard_of(number)
        return self.shard(shard)[place]


def _blocks(sequences: Iterable[tuple[int, Sequence]], size: int) -> Iterator[list[tuple[int, Sequence]]]:
    block: list[tuple[int, Sequence]] = []
    for item in sequences:
        block.append(item)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def _teacher_lengths(block: list[tuple[int, Sequence]]) -> list[int]:
    if all(sequence.teacher is None for _, sequence in block):
        return []
    return [sequence.for_teacher.length for _, sequence in block]


def _encode(block: list[tuple[int, Sequence]]) -> bytes:
    sequences = [sequence for _, sequence in block]
    tensors = {**_tensors(sequences), "row": np.array([row for row, _ in block], dtype=np.int64)}
    if any(sequence.teacher is not None for sequence in sequences):
        nothing = Sequence(ids=np.zeros(0, np.int32), target_mask=np.zeros(0, np.bool_))
        readings = _tensors([sequence.teacher or nothing for sequence in sequences])
        tensors |= {f"teacher_{name}": tensor for name, tensor in readings.items()}
    return save(tensors)


def _tensors(sequences: list[Sequence]) -> dict[str, NDArray[Any]]:
    return {
        "ids": np.concatenate([sequence.ids.astype(np.int32) for sequence in sequences]),
        "target_mask": np.concatenate([sequence.target_mask.astype(np.uint8) for sequence in sequences]),
        "offsets": np.cumsum([0] + [sequence.length for sequence in sequences], dtype=np.int64),
    }


def _decode(data: bytes) -> Iterator[Sequence]:
    tensors = load(data)
    own = _readings(tensors, "")
    if "teacher_ids" not in tensors:
        yield from own
        return
    for sequence, teacher in zip(own, _readings(tensors, "teacher_"), strict=True):
        yield replace(sequence, teacher=teacher) if teacher.length else sequence


def _readings(tensors: dict[str, NDArray[Any]], prefix: str) -> Iterator[Sequence]:
    ids, mask = tensors[f"{prefix}ids"], tensors[f"{prefix}target_mask"]
    for start, end in pairwise(tensors[f"{prefix}offsets"]):
        yield Sequence(ids=ids[start:end], target_mask=mask[start:end].astype(np.bool_))
