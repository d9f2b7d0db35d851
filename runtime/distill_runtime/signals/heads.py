"""The weights of the teacher's output head in the store: published once a teacher and precision, checked when read."""

import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from distill_runtime.digests import digest_of_file
from distill_runtime.errors import RetryError
from distill_runtime.prepared import Prepared
from distill_runtime.signals.generations import (
    GENERATIONS,
    Damaged,
    manifest_key,
    mark_bad,
    part_name,
    read_state,
)
from distill_runtime.signals.head import OutputHead
from distill_runtime.signals.head_manifest import HeadManifest, head_folder, read_head_manifest
from distill_runtime.store.base import ObjectMissing, ObjectStore


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
        manifest = read_head_manifest(store, prepared, state.generation)
        return _read_weights(store, folder, manifest)
    except Damaged as damage:
        mark_bad(store, folder, damage, reader)
        raise


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
