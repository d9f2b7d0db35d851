"""Folders whose content can be repaired: numbered generations of a manifest.

<folder>/parts/<sha256>.safetensors   written before the manifest
<folder>/manifest-<g>.json            put if absent: the first writer of a generation wins
<folder>/bad-<g>.json                 a reader found generation g damaged; the next one counts
<folder>/error-<g>.json               it can't be made: terminal, so that nobody waits for it
<folder>/claims/<g>-<n>.json          who is making it; see `transport.claims`

Everything about the state is read off one listing.
"""

import re
import time
from dataclasses import dataclass, field
from typing import Literal, Self

from pydantic import ValidationError

from distill_runtime.digests import digest_of_bytes
from distill_runtime.prepared import Record
from distill_runtime.store.base import ObjectInfo, ObjectStore

GENERATIONS = 16
"""Damaged generations of one folder before the store itself must be at fault."""

FolderStatus = Literal["missing", "ready", "failed", "broken"]
"""`broken`: there is a manifest and no part at all."""

_NUMBERED = re.compile(r"(manifest|bad|error)-(\d{1,9})\.json")
_CLAIM = re.compile(r"claims/(\d{1,9})-(\d{1,9})\.json")
_NO_CHECKSUM = "0" * 64


class Damaged(Exception):
    """An object that doesn't hold what was written."""

    def __init__(self, key: str, problem: str, generation: int) -> None:
        super().__init__(f"object {key} is damaged: {problem}")
        self.key = key
        self.problem = problem
        self.generation = generation


class BadMark(Record):
    """Why a generation doesn't count any more."""

    key: str
    """The damaged object."""
    problem: str
    writer: str
    time: float


class ErrorMark(Record):
    """Why there will be no such thing."""

    message: str
    writer: str
    time: float


class SealedRecord(Record):
    """A record with a checksum over its own bytes: a flipped byte anywhere in it is noticed."""

    checksum: str = _NO_CHECKSUM
    """sha256 of this document with zeros here."""

    def seal(self) -> bytes:
        """The document as bytes, with its checksum filled in."""
        plain = self.model_copy(update={"checksum": _NO_CHECKSUM}).model_dump_json()
        return self.model_copy(update={"checksum": digest_of_bytes(plain.encode())}).model_dump_json().encode()

    @classmethod
    def unseal(cls, data: bytes) -> Self:
        """The record in these bytes. Raises ValueError where they aren't the ones that `seal` gave."""
        try:
            record = cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"not a valid document ({first['msg']})") from error
        if record.seal() != data:
            raise ValueError("its checksum doesn't fit")
        return record


@dataclass
class FolderState:
    """What one listing says about a folder."""

    manifests: set[int] = field(default_factory=set[int])
    bad: set[int] = field(default_factory=set[int])
    errors: set[int] = field(default_factory=set[int])
    claims: dict[tuple[int, int], str] = field(default_factory=dict[tuple[int, int], str])
    """(generation, number) of each claim, with its tag."""
    part_bytes: int = 0

    def add(self, name: str, info: ObjectInfo) -> None:
        """Takes in one object; `name` is its key below the folder."""
        if name.startswith("parts/"):
            self.part_bytes += info.size
        elif match := _CLAIM.fullmatch(name):
            self.claims[int(match[1]), int(match[2])] = info.tag
        elif match := _NUMBERED.fullmatch(name):
            numbers = {"manifest": self.manifests, "bad": self.bad, "error": self.errors}
            numbers[match[1]].add(int(match[2]))

    @property
    def generation(self) -> int:
        """The generation that counts: the first after all damaged ones."""
        return max(self.bad, default=-1) + 1

    @property
    def status(self) -> FolderStatus:
        """State of the generation that counts."""
        if self.generation in self.manifests:
            return "ready" if self.part_bytes else "broken"
        return "failed" if self.generation in self.errors else "missing"

    @property
    def last_claim(self) -> tuple[int, str] | None:
        """Number and tag of the newest claim on the generation that counts."""
        numbers = [number for generation, number in self.claims if generation == self.generation]
        return (max(numbers), self.claims[self.generation, max(numbers)]) if numbers else None


def manifest_key(folder: str, generation: int) -> str:
    """Where a generation's manifest is."""
    return f"{folder}/manifest-{generation}.json"


def error_key(folder: str, generation: int) -> str:
    """Where a generation's error marker is."""
    return f"{folder}/error-{generation}.json"


def claim_key(folder: str, generation: int, number: int) -> str:
    """Where a claim is."""
    return f"{folder}/claims/{generation}-{number}.json"


def part_name(sha256: str) -> str:
    """Name of a part below its folder."""
    return f"parts/{sha256}.safetensors"


def read_state(store: ObjectStore, folder: str) -> FolderState:
    """The state of one folder, by one listing."""
    state = FolderState()
    for info in store.list(f"{folder}/"):
        state.add(info.key.removeprefix(f"{folder}/"), info)
    return state


def mark_bad(store: ObjectStore, folder: str, damage: Damaged, writer: str) -> bool:
    """Says that a generation is damaged. Returns False where another one has said so already."""
    mark = BadMark(key=damage.key, problem=damage.problem, writer=writer, time=time.time())
    return store.put_if_absent(f"{folder}/bad-{damage.generation}.json", mark.model_dump_json().encode())


def mark_failed(store: ObjectStore, folder: str, generation: int, message: str, writer: str) -> bool:
    """Leaves an error marker. Returns False where there is one already."""
    mark = ErrorMark(message=message, writer=writer, time=time.time())
    return store.put_if_absent(error_key(folder, generation), mark.model_dump_json().encode())


def delete_folder(store: ObjectStore, folder: str) -> None:
    """Removes a folder, manifests first: whoever comes meanwhile finds nothing, and nothing damaged."""
    keys = [info.key for info in store.list(f"{folder}/")]
    for key in sorted(keys, key=lambda key: not key.startswith(f"{folder}/manifest-")):
        store.delete(key)
