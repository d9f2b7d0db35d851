"""Folders as artifacts in the store: models above all.

<key>/<name>          each file
<key>/manifest.json   names, sizes and sha256 of all files; written last: an artifact without it does not exist

Writers of one key write the same content (keys are digests of inputs). Should two differ, the files of one can't be
taken for those of the other: each is compared with the manifest.
"""

from pathlib import Path

from pydantic import ValidationError

from distill_runtime.cache import filled_once, in_threads
from distill_runtime.digests import digest_of, digest_of_file
from distill_runtime.errors import RetryError
from distill_runtime.prepared import Record
from distill_runtime.store.base import ObjectCorrupt, ObjectMissing, ObjectStore

MANIFEST = "manifest.json"


class ArtifactFile(Record):
    """One file of an artifact."""

    name: str
    """Path below the folder, with slashes."""
    size: int
    sha256: str


class ArtifactManifest(Record):
    """All files of an artifact, by name."""

    digest: str
    """Digest over names and contents of the files."""
    files: list[ArtifactFile]

    @classmethod
    def of(cls, files: list[ArtifactFile]) -> "ArtifactManifest":
        """The manifest of these files."""
        return cls(digest=_digest(files), files=files)


def _digest(files: list[ArtifactFile]) -> str:
    return digest_of([[file.name, file.size, file.sha256] for file in files])


def describe_folder(folder: Path) -> ArtifactManifest:
    """What `store_folder` would write: all files below the folder, hidden ones left out."""
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise ValueError(f"{folder} holds no files")
    if folder / MANIFEST in paths:
        raise ValueError(f"{folder} has a {MANIFEST} of its own, which the artifact's would replace")

    def describe(path: Path) -> ArtifactFile:
        name = path.relative_to(folder).as_posix()
        return ArtifactFile(name=name, size=path.stat().st_size, sha256=digest_of_file(path))

    return ArtifactManifest.of(in_threads(describe, paths))


def store_folder(store: ObjectStore, key: str, folder: Path) -> str:
    """Stores all files of the folder, then their manifest. Returns the digest; does nothing where it is stored already.

    Raises
    ------
    ValueError
        The folder is empty, or has a `manifest.json` of its own.
    """
    manifest = describe_folder(folder)
    stored = _read_manifest(store, key)
    if stored is not None and stored.digest == manifest.digest:
        return manifest.digest
    # While files are replaced there is no artifact.
    store.delete(f"{key}/{MANIFEST}")
    in_threads(lambda file: store.upload(f"{key}/{file.name}", folder / file.name), manifest.files)
    store.put(f"{key}/{MANIFEST}", manifest.model_dump_json().encode())
    return manifest.digest


def stored_digest(store: ObjectStore, key: str) -> str | None:
    """The digest of the artifact under this key; None where there is no whole one."""
    manifest = _read_manifest(store, key)
    return manifest.digest if manifest is not None else None


def _read_manifest(store: ObjectStore, key: str) -> ArtifactManifest | None:
    """The manifest; None where it is missing or not the one that was written."""
    try:
        manifest = ArtifactManifest.model_validate_json(store.get(f"{key}/{MANIFEST}"))
    except (ObjectMissing, ValidationError):
        return None
    return manifest if manifest.digest == _digest(manifest.files) else None


def fetch_folder(store: ObjectStore, key: str, cache: Path) -> Path:
    """The artifact as the folder `cache/<digest>`: downloaded and checked once on a node, then reused.

    Raises
    ------
    RetryError
        There is no whole artifact, or a file of it is missing or corrupt; the sentence names the object. The manifest
        of a corrupt artifact is removed, so that whoever makes the artifact makes it again.
    """
    manifest = _read_manifest(store, key)
    if manifest is None:
        raise RetryError(
            f"{store.uri}/{key} is missing or not whole: run the step that makes it again.", reason="ArtifactMissing"
        )

    def fill(folder: Path) -> None:
        in_threads(
            lambda file: _fetch_file(store, f"{key}/{file.name}", folder / file.name, file.sha256), manifest.files
        )

    try:
        return filled_once(cache / manifest.digest, fill)
    except (ObjectMissing, ObjectCorrupt) as error:
        store.delete(f"{key}/{MANIFEST}")
        raise RetryError(
            f"an artifact in {store.uri} is not whole ({error}): run the step that makes it again.",
            reason="ArtifactCorrupt",
        ) from error


def _fetch_file(store: ObjectStore, key: str, path: Path, sha256: str) -> None:
    """Downloads and checks a file; a second time where it was damaged on the way."""
    found = ""
    for _ in range(2):
        store.download(key, path)
        found = digest_of_file(path)
        if found == sha256:
            return
    raise ObjectCorrupt(key, sha256, found)
