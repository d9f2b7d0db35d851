"""The teacher's output head in the store: published once per teacher and precision, verified when read."""

import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from distill_runtime import layout
from distill_runtime.digests import digest_of_file
from distill_runtime.errors import RetryError
from distill_runtime.prepared import Prepared
from distill_runtime.signals.generations import (
    GENERATIONS,
    Damaged,
    SealedRecord,
    manifest_key,
    mark_bad,
    part_name,
    read_state,
)
from distill_runtime.signals.head import HeadDescription, OutputHead
from distill_runtime.store.base import ObjectMissing, ObjectStore

HEAD_VERSION = 1
"""Version of the manifest's form."""


class HeadManifest(SealedRecord):
    """What a head's folder holds."""

    version: int = HEAD_VERSION
    teacher: str
    """Digest of the teacher's files."""
    generation: int
    part: str
    """Name of the weights' object below the folder."""
    sha256: str
    """Of that object."""
    description: HeadDescription
    writer: str
    time: float
    """Seconds since the epoch."""


def head_folder(prepared: Prepared) -> str:
    """Where the head of the job's teacher is."""
    return layout.head_key(f"{prepared.teacher.digest}-{prepared.teacher_dtype}")


def publish_head(store: ObjectStore, prepared: Prepared, head: OutputHead, writer: str) -> bool:
    """Stores the head unless it is there. Returns False where it was.

    Raises
    ------
    RetryError
        The store doesn't keep what is written to it.
    """
    folder = head_folder(prepared)
    state = read_state(store, folder)
    if state.status == "ready":
        return False
    if state.status == "broken":
        damage = Damaged(manifest_key(folder, state.generation), "its weights are missing", state.generation)
        mark_bad(store, folder, damage, writer)
        state = read_state(store, folder)
    _check_generation(store, folder, state.generation)
    tensors = {"weight": head.weight.contiguous()}
    if head.bias is not None:
        tensors["bias"] = head.bias.contiguous()
    with tempfile.TemporaryDirectory(prefix="head-") as scratch:
        path = Path(scratch) / "head.safetensors"
        save_file(tensors, path)
        sha256 = digest_of_file(path)
        store.upload(f"{folder}/{part_name(sha256)}", path)
    manifest = HeadManifest(
        teacher=prepared.teacher.digest,
        generation=state.generation,
        part=part_name(sha256),
        sha256=sha256,
        description=head.description,
        writer=writer,
        time=time.time(),
    )
    return store.put_if_absent(manifest_key(folder, state.generation), manifest.seal())


def is_published(store: ObjectStore, prepared: Prepared) -> bool:
    """Is the head there?"""
    return read_state(store, head_folder(prepared)).status == "ready"


def read_description(store: ObjectStore, prepared: Prepared) -> HeadDescription | None:
    """What is said of the head; None where it isn't published (or damaged)."""
    folder = head_folder(prepared)
    state = read_state(store, folder)
    if state.status != "ready":
        return None
    try:
        return _read_manifest(store, prepared, state.generation).description
    except (Damaged, ObjectMissing):
        return None


def read_head(store: ObjectStore, prepared: Prepared, reader: str) -> OutputHead | None:
    """The published head; None where there is none.

    Raises
    ------
    Damaged
        It isn't what was written: now marked, so that the next teacher publishes it again.
    """
    folder = head_folder(prepared)
    state = read_state(store, folder)
    _check_generation(store, folder, state.generation)
    if state.status == "missing":
        return None
    try:
        manifest = _read_manifest(store, prepared, state.generation)
        return _read_weights(store, folder, manifest)
    except Damaged as damage:
        mark_bad(store, folder, damage, reader)
        raise


def _read_manifest(store: ObjectStore, prepared: Prepared, generation: int) -> HeadManifest:
    key = manifest_key(head_folder(prepared), generation)
    try:
        manifest = HeadManifest.unseal(store.get(key))
    except ValueError as error:
        raise Damaged(key, str(error), generation) from error
    if (manifest.version, manifest.teacher, manifest.generation) != (HEAD_VERSION, prepared.teacher.digest, generation):
        raise Damaged(key, "it is another head's", generation)
    return manifest


def _read_weights(store: ObjectStore, folder: str, manifest: HeadManifest) -> OutputHead:
    key = f"{folder}/{manifest.part}"
    with tempfile.TemporaryDirectory(prefix="head-") as scratch:
        path = Path(scratch) / "head.safetensors"
        try:
            store.download(key, path)
        except ObjectMissing as error:
            raise Damaged(key, "it is missing", manifest.generation) from error
        if digest_of_file(path) != manifest.sha256:
            raise Damaged(key, "its sha256 is not the one that was written", manifest.generation)
        # A copy: the tensors may be mapped from a file that goes with the folder.
        tensors: dict[str, torch.Tensor] = {name: tensor.clone() for name, tensor in load_file(path).items()}
    return OutputHead(description=manifest.description, weight=tensors["weight"], bias=tensors.get("bias"))


def _check_generation(store: ObjectStore, folder: str, generation: int) -> None:
    if generation >= GENERATIONS:
        raise RetryError(
            f"{store.uri}/{folder} was damaged {generation} times: the store doesn't keep what is written to it.",
            reason="StoreCorrupt",
        )
