"""Checkpoints in a format of our own: whole float32 weights and optimizer states, for any ranks and ZeRO stage.

trainings/<training>/checkpoints/step-00000100/parts/<sha256>.safetensors    tensors `<parameter>:<kind>`
trainings/<training>/checkpoints/step-00000100/manifest-<attempt>-<nonce>.json   written when all parts are there

Only what the fence lists counts. Training stands still while tensors are gathered and written to the local disk, one
part at a time, the parts divided over the ranks; uploads happen beside the training.
"""

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from pydantic import Field, ValidationError
from safetensors.torch import load, save_file

from distill_runtime import layout
from distill_runtime.contract.report import CurvePoint
from distill_runtime.digests import digest_of_bytes, digest_of_file
from distill_runtime.errors import RetryError
from distill_runtime.prepared import Record
from distill_runtime.store.base import ObjectCorrupt, ObjectMissing, ObjectStore
from distill_runtime.student.curves import write_segment
from distill_runtime.student.distributed import Ranks, agree
from distill_runtime.student.engine import WEIGHT, StudentEngine, bit_sum
from distill_runtime.student.fence import CheckpointEntry, Fence

FORMAT_VERSION = 1
PART_BYTES = 2**30
"""A part is closed when it holds this much; a larger tensor is a part of its own."""
RANDOM = "random:torch"
"""Name of the tensor with rank 0's random state. Nothing in training is random today; it is kept for what may come."""

log = logging.getLogger(__name__)


class Position(Record):
    """Where a training stands, beside its tensors."""

    step: int = 0
    """Optimizer steps made."""
    evaluated_step: int = -1
    """The step of the last held-out loss."""
    held_out_loss: float | None = None
    best_loss: float | None = None
    """The lowest held-out loss after at least one step."""
    best_step: int | None = None
    worse_evaluations: int = 0
    """Held-out losses since the lowest."""
    loss: float | None = None
    """Of the last step."""
    seconds: float = 0.0
    """Wall time of all steps so far, over all attempts."""
    waited_seconds: float = 0.0
    """Part of it that went by waiting for the teacher."""
    tokens: int = 0
    """Tokens read in all steps."""
    row_tokens: int = 0
    """Tokens of all rows that were read, padding included."""


class CheckpointPart(Record):
    """One file of tensors."""

    key: str
    sha256: str
    size: int


class CheckpointManifest(Record):
    """A whole checkpoint."""

    version: int = FORMAT_VERSION
    position: Position
    attempt: int
    parts: list[CheckpointPart]
    weights: dict[str, int] = Field(default={})
    """Checksum of the bits of each float32 weight."""
    probe_loss: float
    """The student's loss on the probe, to compare with after a resume."""
    loss_scale: float = 1.0
    scalars: dict[str, float] = Field(default={})
    """The optimizer's numbers that are the same for all weights."""


@dataclass
class _Flight:
    """A checkpoint that is on its way to the store."""

    manifest: CheckpointManifest
    points: list[CurvePoint]
    best: bool
    uploads: threading.Thread
    errors: list[Exception] = field(default_factory=list)


class Checkpointer:
    """Writes checkpoints of one training. All methods but `uploading` are called by all ranks together."""

    def __init__(
        self,
        store: ObjectStore,
        training_digest: str,
        ranks: Ranks,
        *,
        fence: Fence | None,
        attempt: int,
        scratch: Path,
        keep: int,
    ) -> None:
        self._store = store
        self._digest = training_digest
        self._ranks = ranks
        self._fence = fence
        self._attempt = attempt
        self._scratch = scratch
        self._keep = keep
        self._flight: _Flight | None = None
        self.saved_step = -1
        """Step of the last checkpoint, on its way or there."""

    @property
    def uploading(self) -> bool:
        """Is this rank still uploading?"""
        return self._flight is not None and self._flight.uploads.is_alive()

    @property
    def in_flight(self) -> bool:
        """Is a checkpoint on its way?"""
        return self._flight is not None

    def save(
        self, engine: StudentEngine, position: Position, *, probe_loss: float, points: list[CurvePoint], best: bool
    ) -> int | None:
        """Snapshots the training and begins to upload it. Returns the step of an earlier checkpoint that had to be
        finished first, if there was one. `points` are rank 0's since the last checkpoint."""
        finished = self.finish()
        assert_equal_replicas(engine, self._ranks, position.step)
        folder = f"{layout.training_key(self._digest)}/checkpoints/step-{position.step:08d}"
        own, weights = self._snapshot(engine, position.step)
        everyone: list[list[tuple[str, int]]] = [[] for _ in range(self._ranks.world)]
        dist.all_gather_object(everyone, [(sha256, size) for sha256, size, _ in own])
        parts = [
            CheckpointPart(key=f"{folder}/parts/{sha256}.safetensors", sha256=sha256, size=size)
            for listed in everyone
            for sha256, size in listed
        ]
        manifest = CheckpointManifest(
            position=position,
            attempt=self._attempt,
            parts=parts,
            weights=weights,
            probe_loss=probe_loss,
            loss_scale=engine.loss_scale,
            scalars=engine.scalars(),
        )
        errors: list[Exception] = []
        files = [(f"{folder}/parts/{sha256}.safetensors", path) for sha256, _, path in own]
        thread = threading.Thread(target=self._upload, args=(files, errors), name="checkpoint-upload", daemon=True)
        self._flight = _Flight(manifest, points, best, thread, errors)
        self.saved_step = position.step
        thread.start()
        return finished

    def _snapshot(self, engine: StudentEngine, step: int) -> tuple[list[tuple[str, int, Path]], dict[str, int]]:
        """This rank's parts (sha256, bytes, file), and the checksums of all weights."""
        own: list[tuple[str, int, Path]] = []
        weights: dict[str, int] = {}
        held: dict[str, torch.Tensor] = {}
        size = number = 0
        for name, kind, tensor in engine.tensors():
            if kind == WEIGHT:
                weights[name] = bit_sum(tensor)
            if size and size + tensor.nbytes > PART_BYTES:
                self._close_part(held, step, number, own)
                held, size, number = {}, 0, number + 1
            if number % self._ranks.world == self._ranks.rank:
                held[f"{name}:{kind}"] = tensor.to("cpu", copy=True).contiguous()
            size += tensor.nbytes
        self._close_part(held, step, number, own)
        if self._ranks.first:
            self._close_part({RANDOM: torch.get_rng_state()}, step, number + 1, own)
        return own, weights

    def _close_part(
        self, tensors: dict[str, torch.Tensor], step: int, number: int, own: list[tuple[str, int, Path]]
    ) -> None:
        if tensors:
            self._scratch.mkdir(parents=True, exist_ok=True)
            path = self._scratch / f"step-{step:08d}-rank-{self._ranks.rank}-part-{number:05d}.safetensors"
            save_file(tensors, path)
            own.append((digest_of_file(path), path.stat().st_size, path))

    def _upload(self, files: list[tuple[str, Path]], errors: list[Exception]) -> None:
        try:
            for key, path in files:
                self._store.upload(key, path)
                path.unlink()
        except Exception as error:  # noqa: BLE001 - it belongs to the main thread, which raises it in `finish`
            errors.append(error)

    def finish(self) -> int | None:
        """Waits for the checkpoint on its way and makes it count. Returns its step; None where there is none.

        Raises
        ------
        RetryError
            The store failed on some rank, or a newer attempt has taken the fence.
        """
        flight, self._flight = self._flight, None
        if flight is None:
            return None

        def end() -> None:
            flight.uploads.join()
            for error in flight.errors:
                raise error

        agree(end, self._ranks)
        agree(lambda: self._commit(flight) if self._fence is not None else None, self._ranks)
        return flight.manifest.position.step

    def _commit(self, flight: _Flight) -> None:
        assert self._fence is not None
        position = flight.manifest.position
        data = flight.manifest.model_dump_json().encode()
        folder = f"{layout.training_key(self._digest)}/checkpoints/step-{position.step:08d}"
        key = f"{folder}/manifest-{self._attempt}-{self._fence.state.nonce}.json"
        self._store.put(key, data)
        write_segment(self._store, self._digest, flight.points, self._fence.state.generation)
        entry = CheckpointEntry(step=position.step, manifest=key, sha256=digest_of_bytes(data))
        before = self._fence.state
        kept = sorted((e for e in before.checkpoints if e.step < entry.step), key=lambda e: e.step)
        self._fence.update([*kept, entry][-self._keep :], entry if flight.best else before.best)
        self._collect_garbage()
        log.info("checkpoint of step %d is durable", position.step)

    def forget(self, entries: list[CheckpointEntry]) -> None:
        """Takes checkpoints that can't be read off the fence (rank 0 alone)."""
        assert self._fence is not None
        state = self._fence.state
        best = None if state.best in entries else state.best
        self._fence.update([e for e in state.checkpoints if e not in entries], best)

    def _collect_garbage(self) -> None:
        """Deletes what no listed checkpoint uses: replaced ones, and what killed attempts left."""
        assert self._fence is not None
        state = self._fence.state
        entries = [*state.checkpoints, *([state.best] if state.best else [])]
        used = {entry.manifest for entry in entries}
        for entry in entries:
            try:
                used.update(part.key for part in read_manifest(self._store, entry).parts)
            except (ObjectMissing, ObjectCorrupt):
                log.warning("%s is damaged; its parts can't be told from garbage, so none is deleted", entry.manifest)
                return
        for info in list(self._store.list(f"{layout.training_key(self._digest)}/checkpoints/")):
            if info.key not in used:
                self._store.delete(info.key)


def assert_equal_replicas(engine: StudentEngine, ranks: Ranks, step: int) -> None:
    """Checks that all ranks train the same weights.

    Raises
    ------
    RetryError
        They have drifted apart: a rank computes wrongly, or gradients were not shared.
    """
    digest = engine.replica_digest()
    everyone: list[int | None] = [None] * ranks.world
    dist.all_gather_object(everyone, digest)
    if len(set(everyone)) > 1:
        odd = next(rank for rank, other in enumerate(everyone) if other != everyone[0])
        raise RetryError(
            f"step {step}: rank {odd} has other weights than rank 0, so nothing was saved: the last checkpoint counts.",
            reason="RanksDiffer",
        )


def read_manifest(store: ObjectStore, entry: CheckpointEntry) -> CheckpointManifest:
    """The manifest of a listed checkpoint. Raises ObjectMissing and ObjectCorrupt."""
    data = store.get_verified(entry.manifest, entry.sha256)
    try:
        return CheckpointManifest.model_validate_json(data)
    except ValidationError:
        raise RetryError(
            f"{store.uri}/{entry.manifest} was written by another version of this software: resume with that one.",
            reason="CheckpointVersion",
        ) from None


def newest_whole(
    store: ObjectStore, entries: list[CheckpointEntry], best: CheckpointEntry | None = None
) -> tuple[CheckpointManifest | None, list[CheckpointEntry]]:
    """The newest checkpoint from which a training can go on, and those that are of no use any more.

    A damaged one is named in a warning, and the one before is tried. If the best weights are damaged, they can only be
    made again from a checkpoint before them.
    """
    lost = None if best is None or _whole(store, best) is not None else best
    useless = [] if lost is None else [lost, *(e for e in entries if e.step >= lost.step and e != lost)]
    for entry in sorted((e for e in entries if e not in useless), key=lambda e: -e.step):
        manifest = _whole(store, entry)
        if manifest is not None:
            return manifest, useless
        useless.append(entry)
    return None, useless


def _whole(store: ObjectStore, entry: CheckpointEntry) -> CheckpointManifest | None:
    """The manifest of a checkpoint all of whose parts are what was written; None, and a warning, for others."""
    try:
        manifest = read_manifest(store, entry)
        for part in manifest.parts:
            store.get_verified(part.key, part.sha256)
    except (ObjectMissing, ObjectCorrupt) as error:
        log.warning("the checkpoint of step %d is damaged (%s): the one before is used", entry.step, error)
        return None
    return manifest


def read_tensors(store: ObjectStore, manifest: CheckpointManifest) -> Iterator[tuple[str, str, torch.Tensor]]:
    """All tensors of a checkpoint as (parameter, kind, float32 tensor), part by part.

    Raises
    ------
    RetryError
        A part is missing or corrupt.
    """
    for part in manifest.parts:
        try:
            tensors = load(store.get_verified(part.key, part.sha256))
        except (ObjectMissing, ObjectCorrupt) as error:
            raise RetryError(
                f"a checkpoint was damaged while it was read ({error}).", reason="CheckpointLost"
            ) from error
        # In a fixed order: safetensors gives another one in each process, and with ZeRO-3 each tensor is a collective.
        for label, tensor in sorted(tensors.items()):
            name, _, kind = label.rpartition(":")
            if label == RANDOM:
                torch.set_rng_state(tensor)
            else:
                yield name, kind, tensor


def restore(engine: StudentEngine, store: ObjectStore, manifest: CheckpointManifest) -> None:
    """Loads a checkpoint into the engine, and checks that the weights are those that were saved.

    Raises
    ------
    RetryError
        A part is damaged, or the weights differ afterwards.
    """
    engine.make_states({"step": float(manifest.position.step), **manifest.scalars})
    missing = {(name, kind) for name in engine.names for kind in (WEIGHT, *engine.states)}
    for name, kind, tensor in read_tensors(store, manifest):
        if (name, kind) in missing:
            missing.discard((name, kind))
            engine.set_tensor(name, kind, tensor)
    engine.set_loss_scale(manifest.loss_scale)
    found = {name: bit_sum(tensor) for name, kind, tensor in engine.tensors() if kind == WEIGHT}
    wrong = next((name for name, checksum in found.items() if manifest.weights.get(name) != checksum), None)
    if missing or wrong:
        raise RetryError(
            f"the checkpoint of step {manifest.position.step} was not restored: "
            f"{wrong or sorted(missing)[0][0]} differs.",
            reason="ResumeMismatch",
        )
