"""Where the report goes: the store, the state folder, and with the model to `output.uri`.

trainings/<training>/report.json   the report
trainings/<training>/report.html   the same as a page
trainings/<training>/README.md     the model card with the results; it replaces the exported model's own in every copy

The exported model is not touched: its manifest, and so its digest, stays what was trained and scored.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from distill_runtime import layout
from distill_runtime.artifacts import MANIFEST, ArtifactFile, ArtifactManifest, describe_folder
from distill_runtime.cache import in_threads
from distill_runtime.contract.report import Report
from distill_runtime.contract.run import RunConfig
from distill_runtime.contract.sections import Storage
from distill_runtime.digests import digest_of_bytes
from distill_runtime.evaluation.report import render
from distill_runtime.progress import state_folder, write_atomically
from distill_runtime.store.base import ObjectMissing, ObjectStore
from distill_runtime.store.open import open_store

REPORT = "report.json"
PAGE = "report.html"
CARD = "README.md"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Documents:
    """What is said of a model, by file name."""

    files: dict[str, str]

    @classmethod
    def of(cls, report: Report, card: str) -> "Documents":
        """The documents of a report."""
        return cls({REPORT: report.model_dump_json(by_alias=True, indent=2) + "\n", PAGE: render(report), CARD: card})


def model_uri(store: ObjectStore, config: RunConfig, key: str) -> str:
    """Where a user finds the distilled model."""
    return config.work.output.uri or f"{store.uri}/{key}"


def report_uri(store: ObjectStore, training_digest: str) -> str:
    """Where a user finds the report as a page."""
    return f"{store.uri}/{layout.training_key(training_digest)}/{PAGE}"


def publish(
    store: ObjectStore, config: RunConfig, training_digest: str, documents: Documents, model_folder: Path
) -> None:
    """Stores the documents, leaves them in the state folder, and copies model and documents to `output.uri`."""
    for name, text in documents.files.items():
        store.put(f"{layout.training_key(training_digest)}/{name}", text.encode())
        write_atomically(state_folder() / name, text)
    if config.work.output.uri is not None:
        copy_model(destination_store(config.work.storage, config.work.output.uri), model_folder, documents)
        log.info("model and report are in %s", config.work.output.uri)


def destination_store(storage: Storage, uri: str) -> ObjectStore:
    """The store of `output.uri`, reached as `storage` is."""
    return open_store(storage.model_copy(update={"uri": uri}))


def copy_model(destination: ObjectStore, folder: Path, documents: Documents) -> None:
    """Copies a model's folder and the documents, the manifest last; does nothing where all of it is there already.

    What an earlier copy left and this one doesn't have is removed.
    """
    texts = {name: text.encode() for name, text in documents.files.items()}
    described = [file for file in describe_folder(folder).files if file.name not in texts]
    described += [ArtifactFile(name=n, size=len(data), sha256=digest_of_bytes(data)) for n, data in texts.items()]
    manifest = ArtifactManifest.of(sorted(described, key=lambda file: file.name))
    earlier = _earlier(destination)
    if earlier is not None and earlier.digest == manifest.digest:
        return
    destination.delete(MANIFEST)
    for file in earlier.files if earlier is not None else []:
        if file.name not in {kept.name for kept in manifest.files}:
            destination.delete(file.name)

    def copy(file: ArtifactFile) -> None:
        if file.name in texts:
            destination.put(file.name, texts[file.name])
        else:
            destination.upload(file.name, folder / file.name)

    in_threads(copy, manifest.files)
    destination.put(MANIFEST, manifest.model_dump_json().encode())


def _earlier(destination: ObjectStore) -> ArtifactManifest | None:
    try:
        return ArtifactManifest.model_validate_json(destination.get(MANIFEST))
    except (ObjectMissing, ValidationError):
        return None
