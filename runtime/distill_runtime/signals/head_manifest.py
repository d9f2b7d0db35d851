"""What is said of the teacher's output head in the store. No torch: `prepare` asks whether it is there."""

from distill_runtime import layout
from distill_runtime.prepared import Prepared
from distill_runtime.signals.generations import Damaged, SealedRecord, manifest_key, read_state
from distill_runtime.signals.head import HeadDescription
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
        return read_head_manifest(store, prepared, state.generation).description
    except (Damaged, ObjectMissing):
        return None


def read_head_manifest(store: ObjectStore, prepared: Prepared, generation: int) -> HeadManifest:
    """The manifest of one generation.

    Raises
    ------
    ObjectMissing
        There is none.
    Damaged
        It isn't what was written, or it is another head's.
    """
    key = manifest_key(head_folder(prepared), generation)
    try:
        manifest = HeadManifest.unseal(store.get(key))
    except ValueError as error:
        raise Damaged(key, str(error), generation) from error
    if (manifest.version, manifest.teacher, manifest.generation) != (HEAD_VERSION, prepared.teacher.digest, generation):
        raise Damaged(key, "it is another head's", generation)
    return manifest
