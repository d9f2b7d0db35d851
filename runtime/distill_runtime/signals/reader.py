"""Reading rows of signals, so that what is read is what was written, or an error that names the object."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Sequence as Many
from contextlib import suppress
from pathlib import Path

import torch

from distill_runtime.digests import digest_of_bytes
from distill_runtime.errors import RetryError, UserError
from distill_runtime.signals.codec import SpanCorrupt, copy_span, decode_span
from distill_runtime.signals.generations import GENERATIONS, Damaged, manifest_key, mark_bad, read_state
from distill_runtime.signals.node_cache import NodeCache
from distill_runtime.signals.shards import Shard, ShardManifest, read_error, read_shard_manifest
from distill_runtime.store.base import ObjectCorrupt, ObjectMissing, ObjectStore

MANIFESTS_HELD = 1024
"""Manifests that one reader keeps in memory."""

log = logging.getLogger(__name__)


class NotReady(Exception):
    """A shard's signals aren't there (yet)."""


class ShardReader:
    """Reads verified rows. May be used from several threads.

    Damaged objects are read once more, then named in the log and marked, so that teachers make them again.
    """

    def __init__(self, store: ObjectStore, *, reader: str, cache: NodeCache | None = None) -> None:
        self._store = store
        self._reader = reader
        self._cache = cache
        self._held: OrderedDict[str, ShardManifest] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes_read = 0
        """Bytes of rows that were handed out."""

    def read(self, shard: Shard, places: Many[int]) -> list[torch.Tensor]:
        """The stored rows [targets, columns] of the sequences at these places of the shard.

        Raises
        ------
        NotReady
            They aren't there, or were damaged and must be made again.
        UserError
            A teacher said that this shard can't be scored.
        RetryError
            The store doesn't keep what is written to it.
        """
        with self._lock:
            held = self._held.get(shard.folder)
        if held is not None:
            # What was held may have been repaired or deleted and made again since: then the store's word counts.
            with suppress(Damaged, ObjectMissing):
                return self._rows(shard, held, places)
            self._forget(shard)
        try:
            return self._read_fresh(shard, places)
        except Damaged:
            # The way here may be at fault, and not the object.
            try:
                return self._read_fresh(shard, places)
            except Damaged as damage:
                self._mark(shard, damage)
                raise NotReady(str(damage)) from damage

    def _read_fresh(self, shard: Shard, places: Many[int]) -> list[torch.Tensor]:
        manifest = self._manifest(shard)
        try:
            rows = self._rows(shard, manifest, places)
        except ObjectMissing as missing:
            if not self._store.exists(manifest_key(shard.folder, manifest.generation)):
                raise NotReady(f"{shard.folder} was deleted") from missing
            raise Damaged(missing.key, "it is missing", manifest.generation) from missing
        with self._lock:
            self._held[shard.folder] = manifest
            if len(self._held) > MANIFESTS_HELD:
                self._held.popitem(last=False)
        return rows

    def _manifest(self, shard: Shard) -> ShardManifest:
        state = read_state(self._store, shard.folder)
        if state.status == "failed":
            self._raise_failure(shard, state.generation)
        if state.generation >= GENERATIONS:
            raise RetryError(
                f"{self._store.uri}/{shard.folder} was damaged {state.generation} times: the store doesn't keep "
                "what is written to it.",
                reason="StoreCorrupt",
            )
        if state.status == "missing":
            raise NotReady(f"{shard.folder} is missing")
        try:
            return read_shard_manifest(self._store, shard, state.generation)
        except ObjectMissing as missing:
            raise NotReady(f"{shard.folder} was deleted") from missing

    def _raise_failure(self, shard: Shard, generation: int) -> None:
        try:
            message = read_error(self._store, shard.folder, generation)
        except ObjectMissing as missing:
            raise NotReady(f"{shard.folder}: its error marker was deleted") from missing
        raise UserError(
            f"The teacher can't score shard {shard.digest[:12]}…: {message} "
            f"(delete {self._store.uri}/{shard.folder}/error-{generation}.json to have it tried again.)",
            reason="SignalFailed",
        )

    def _rows(self, shard: Shard, manifest: ShardManifest, places: Many[int]) -> list[torch.Tensor]:
        try:
            found = dict(self._verified(shard, manifest, sorted(set(places))))
        except ObjectCorrupt as error:
            raise Damaged(error.key, "its sha256 is not the one that was written", manifest.generation) from error
        except SpanCorrupt as error:
            raise Damaged(f"{shard.folder}/{manifest.part}", str(error), manifest.generation) from error
        rows = [found[place] for place in places]
        with self._lock:
            self.bytes_read += sum(block.nbytes for block in rows)
        return rows

    def _verified(self, shard: Shard, manifest: ShardManifest, places: list[int]) -> Iterator[tuple[int, torch.Tensor]]:
        key = f"{shard.folder}/{manifest.part}"
        entries = manifest.sequences
        cached = None
        if self._cache is not None and manifest.size <= self._cache.capacity_bytes:
            cached = self._from_cache(self._cache, key, manifest, places)
        if cached is not None:
            yield from cached
        elif 2 * sum(entries[place].length for place in places) >= manifest.size:
            data = self._store.get(key)
            if len(data) != manifest.size or digest_of_bytes(data) != manifest.sha256:
                raise SpanCorrupt(f"{len(data)} bytes with another sha256 than the {manifest.size} that were written")
            view = memoryview(data)
            for place in places:
                span = entries[place].span
                block = view[span.start : span.start + span.length]
                yield place, copy_span(block, span, manifest.row)
        else:
            for run in _neighbours(places):
                start, end = entries[run[0]].start, entries[run[-1]].start + entries[run[-1]].length
                view = memoryview(self._store.get(key, start=start, length=end - start))
                for place in run:
                    span = entries[place].span
                    block = view[span.start - start : span.start - start + span.length]
                    yield place, decode_span(block, span, manifest.row)

    def _from_cache(
        self, cache: NodeCache, key: str, manifest: ShardManifest, places: list[int]
    ) -> list[tuple[int, torch.Tensor]] | None:
        """Rows from the node's disk; None where that can't be trusted: then the store has the last word."""
        for _ in range(2):
            path = cache.bring(self._store, key, manifest.sha256, manifest.size)
            try:
                return list(_rows_in_file(path, manifest, places))
            except (SpanCorrupt, FileNotFoundError) as error:
                log.warning("the copy %s of %s can't be used: %s", path, key, error)
                cache.drop(manifest.sha256)
        return None

    def _mark(self, shard: Shard, damage: Damaged) -> None:
        log.warning("%s in %s: marked, to be made again", damage, self._store.uri)
        mark_bad(self._store, shard.folder, damage, self._reader)
        self._forget(shard)

    def _forget(self, shard: Shard) -> None:
        with self._lock:
            self._held.pop(shard.folder, None)


def _rows_in_file(path: Path, manifest: ShardManifest, places: list[int]) -> Iterator[tuple[int, torch.Tensor]]:
    with path.open("rb") as file:
        for place in places:
            span = manifest.sequences[place].span
            file.seek(span.start)
            yield place, decode_span(file.read(span.length), span, manifest.row)


def _neighbours(places: list[int]) -> Iterator[list[int]]:
    """Runs of places that follow each other, so that each is one request."""
    run: list[int] = []
    for place in places:
        if run and place != run[-1] + 1:
            yield run
            run = []
        run.append(place)
    if run:
        yield run
