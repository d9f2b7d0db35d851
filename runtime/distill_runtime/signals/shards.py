"""Shards of signals in the store: writing, reading, states, repair.

Parts first, manifest last and only if absent: the first writer wins, and whoever loses uses the winner's. A damaged
object makes the next numbered generation; see `generations`.
"""

import time
from collections.abc import Sequence as Many
from dataclasses import dataclass

from pydantic import ValidationError

from distill_runtime.data.plan import PlanShard
from distill_runtime.data.sequence import Sequence
from distill_runtime.digests import digest_of_bytes
from distill_runtime.prepared import Record, StoredSignal
from distill_runtime.signals.addresses import folder_of, shard_folder
from distill_runtime.signals.generations import (
    Damaged,
    ErrorMark,
    FolderState,
    SealedRecord,
    error_key,
    manifest_key,
    part_name,
)
from distill_runtime.signals.row_format import RowFormat
from distill_runtime.signals.spans import EncodedShard, Span
from distill_runtime.store.base import ObjectMissing, ObjectStore

MANIFEST_VERSION = 2
"""Version of the manifest's form."""


class SequenceEntry(Record):
    """One sequence's signal."""

    digest: str
    """Digest of its ids and target mask."""
    rows: int
    start: int
    """First byte in the part."""
    length: int
    """Bytes."""
    sha256: str
    """Of these bytes."""

    @property
    def span(self) -> Span:
        """The codec's view of it."""
        return Span(rows=self.rows, start=self.start, length=self.length, sha256=self.sha256)


class ShardManifest(SealedRecord):
    """What a shard's folder holds."""

    version: int = MANIFEST_VERSION
    signal: str
    """Digest of the teacher and the row's format."""
    shard: str
    """Digest of the sequences."""
    generation: int
    part: str
    """Name of the part below the folder."""
    sha256: str
    """Of the part."""
    size: int
    """Bytes of the part."""
    row: RowFormat
    sequences: list[SequenceEntry]
    writer: str
    """Which replica of which job made it."""
    time: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class Shard:
    """A shard that is wanted, as its plan describes it."""

    root: str
    """Where the folders of its signals are."""
    signal: StoredSignal
    """What they say."""
    digest: str
    """Digest of its sequences."""
    targets: tuple[int, ...]
    """Targets of each sequence."""

    @property
    def folder(self) -> str:
        """Where its signals are."""
        return shard_folder(self.root, self.digest)


def shard_of_plan(root: str, signal: StoredSignal, described: PlanShard) -> Shard:
    """The signals that belong to one shard of a plan."""
    return Shard(root=root, signal=signal, digest=described.digest, targets=tuple(described.targets))


def list_states(store: ObjectStore, root: str) -> dict[str, FolderState]:
    """The state of every shard's folder below `root`, by one listing. Folders that don't exist aren't in it."""
    states: dict[str, FolderState] = {}
    for info in store.list(f"{root}/"):
        folder = folder_of(root, info.key)
        if folder is not None:
            states.setdefault(folder, FolderState()).add(info.key.removeprefix(f"{folder}/"), info)
    return states


def write_shard(
    store: ObjectStore,
    shard: Shard,
    encoded: EncodedShard,
    sequences: Many[Sequence],
    *,
    generation: int,
    writer: str,
) -> bool:
    """Writes a shard: its part, then its manifest. Returns False where another writer was first: its signals count."""
    manifest = ShardManifest(
        signal=shard.signal.digest,
        shard=shard.digest,
        generation=generation,
        part=part_name(encoded.sha256),
        sha256=encoded.sha256,
        size=len(encoded.data),
        row=shard.signal.row,
        sequences=[
            SequenceEntry(
                digest=sequence.digest, rows=span.rows, start=span.start, length=span.length, sha256=span.sha256
            )
            for sequence, span in zip(sequences, encoded.spans, strict=True)
        ],
        writer=writer,
        time=time.time(),
    )
    store.put(f"{shard.folder}/{manifest.part}", encoded.data)
    data = manifest.seal()
    if store.put_if_absent(manifest_key(shard.folder, generation), data):
        return True
    try:
        winner = read_shard_manifest(store, shard, generation)
    except (ObjectMissing, Damaged):
        return False
    if winner.part != manifest.part:
        store.delete(f"{shard.folder}/{manifest.part}")
    # A write whose answer was lost and that was sent again finds itself.
    return winner.seal() == data


def read_shard_manifest(store: ObjectStore, shard: Shard, generation: int) -> ShardManifest:
    """The manifest of one generation, checked against what the plan wants.

    Raises
    ------
    ObjectMissing
        There is none.
    Damaged
        It isn't what was written, or it is another shard's.
    """
    key = manifest_key(shard.folder, generation)
    try:
        manifest = ShardManifest.unseal(store.get(key))
        _check_manifest(manifest, shard, generation)
    except ValueError as error:
        raise Damaged(key, str(error), generation) from error
    return manifest


def _check_manifest(manifest: ShardManifest, shard: Shard, generation: int) -> None:
    wanted = {
        "version": MANIFEST_VERSION,
        "signal": shard.signal.digest,
        "shard": shard.digest,
        "generation": generation,
        "row": shard.signal.row,
        "part": part_name(manifest.sha256),
    }
    for name, value in wanted.items():
        found = getattr(manifest, name)
        if found != value:
            raise ValueError(f"its {name} is {found}, not {value}")
    # The shard's digest covers its sequences' digests in order: so do these.
    digests = b"".join(bytes.fromhex(entry.digest) for entry in manifest.sequences)
    if digest_of_bytes(digests) != shard.digest:
        raise ValueError("its sequences are not those of the plan")
    if tuple(entry.rows for entry in manifest.sequences) != shard.targets:
        raise ValueError("its row counts are not those of the plan")
    if any(entry.length != entry.rows * manifest.row.row_bytes for entry in manifest.sequences):
        raise ValueError("its byte ranges don't fit its rows")


def read_error(store: ObjectStore, folder: str, generation: int) -> str:
    """What the teacher said about a shard that can't be scored. Raises ObjectMissing."""
    data = store.get(error_key(folder, generation))
    try:
        return ErrorMark.model_validate_json(data).message
    except ValidationError:
        return "the teacher couldn't score this shard, and its message is damaged"
