"""Tasks of lm-evaluation-harness: definitions are stored, and all data is loaded once, before anything else starts."""

from collections.abc import Callable
from pathlib import Path

from distill_runtime import layout
from distill_runtime.artifacts import describe_folder, fetch_folder, store_folder
from distill_runtime.cache import filled_once, in_threads
from distill_runtime.contract.sections import Harness, Storage
from distill_runtime.digests import digest_of
from distill_runtime.errors import UserError
from distill_runtime.evaluation.harness import INCLUDE, HarnessRequest, check_definitions, load_tasks
from distill_runtime.locations import bucket_and_key, local_path, scheme_of
from distill_runtime.prepared import HarnessReference, HarnessReferences
from distill_runtime.store.base import ObjectInfo, ObjectStore
from distill_runtime.store.s3 import S3Store

LARGEST_FOLDER = 1024 * 2**20
"""Bytes of definitions and their data, which go into the store."""
MOST_FILES = 10_000


def definitions_folder(harness: Harness, storage: Storage, *, cache: Path) -> Path | None:
    """The folder of `harness.include` on this machine, checked; None where none is given.

    Raises
    ------
    UserError
        It is missing or too large, or a definition can't be used.
    """
    uri = harness.include
    if uri is None:
        return None
    folder = _from_bucket(uri, storage, cache) if scheme_of(uri) == "s3" else local_path(uri)
    if not folder.is_dir():
        raise UserError(f"{INCLUDE}: {uri}: there is no folder {folder}.", reason="BadTask")
    files = [path for path in folder.rglob("*") if path.is_file()]
    _check_size(uri, len(files), sum(path.stat().st_size for path in files))
    check_definitions(folder, uri)
    return folder


def definitions_digest(folder: Path, uri: str) -> str:
    """Digest of names and contents of all files.

    Raises
    ------
    UserError
        The folder has a file that can't be stored.
    """
    try:
        return describe_folder(folder).digest
    except ValueError as error:
        raise UserError(f"{INCLUDE}: {uri}: {error}.", reason="BadTask") from error


def load_harness(
    store: ObjectStore,
    harness: Harness,
    folder: Path | None,
    *,
    cache: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> HarnessReferences:
    """Stores the definitions and loads the data of all tasks.

    Raises
    ------
    UserError, RetryError
        A task can't be used or its data can't be loaded; see `evaluation.harness.load_tasks`.
    """
    key = None
    if folder is not None:
        key = layout.definitions_key(definitions_digest(folder, str(harness.include)))
        store_folder(store, key, folder)
        # As the evaluation will have them: what lies outside of the folder is missed now and not then.
        folder = fetch_folder(store, key, cache / "artifacts")
    request = HarnessRequest(
        tasks=harness.tasks,
        include=None if folder is None else str(folder),
        chat_template=harness.chat_template,
        model=None,
    )
    loaded = load_tasks(request, cache=cache, progress=progress)
    tasks = [HarnessReference(task=task.task, documents=task.documents, digest=task.digest) for task in loaded]
    return HarnessReferences(tasks=tasks, include=key)


def _check_size(uri: str, files: int, size: int) -> None:
    if files > MOST_FILES or size > LARGEST_FOLDER:
        raise UserError(
            f"{INCLUDE}: {uri} has {files} files of {size} bytes, more than {MOST_FILES} files or {LARGEST_FOLDER} "
            "bytes: give a folder with definitions and their data alone.",
            reason="BadTask",
        )


def _from_bucket(uri: str, storage: Storage, cache: Path) -> Path:
    bucket, path = bucket_and_key(uri)
    prefix = f"{path.rstrip('/')}/" if path.strip("/") else ""
    source = S3Store(bucket, "", storage)
    found = [info for info in source.list(prefix) if not info.key.endswith("/")]
    if not found:
        raise UserError(f"{INCLUDE}: {uri}: there is nothing below it in the bucket.", reason="BadTask")
    _check_size(uri, len(found), sum(info.size for info in found))
    for info in found:
        if ".." in info.key.removeprefix(prefix).split("/"):
            raise UserError(f"{INCLUDE}: {uri}: the key {info.key} leads out of the folder.", reason="BadTask")
    version = digest_of([uri, storage.endpoint, [[info.key, info.size, info.tag] for info in found]])

    def fill(folder: Path) -> None:
        def fetch(info: ObjectInfo) -> None:
            source.download(info.key, folder / info.key.removeprefix(prefix))

        in_threads(fetch, found)

    return filled_once(cache / "definitions" / version, fill)
