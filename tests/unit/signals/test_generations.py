"""States of folders, sealed records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_runtime.signals.generations import FolderState, SealedRecord
from distill_runtime.store.base import ObjectInfo


class Note(SealedRecord):
    text: str
    number: float


def state_of(*names: str) -> FolderState:
    state = FolderState()
    for name in names:
        state.add(name, ObjectInfo(f"folder/{name}", 10, name))
    return state


@pytest.mark.parametrize(
    ("names", "status", "generation"),
    [
        ([], "missing", 0),
        (["parts/a.safetensors"], "missing", 0),
        (["claims/0-0.json"], "missing", 0),
        (["parts/a.safetensors", "manifest-0.json"], "ready", 0),
        (["manifest-0.json"], "broken", 0),
        (["parts/a.safetensors", "manifest-0.json", "bad-0.json"], "missing", 1),
        (["parts/a.safetensors", "manifest-0.json", "bad-0.json", "manifest-1.json"], "ready", 1),
        (["error-0.json"], "failed", 0),
        (["error-0.json", "manifest-0.json", "parts/a.safetensors"], "ready", 0),
        (["error-0.json", "bad-0.json"], "missing", 1),
        (["bad-0.json", "bad-1.json", "bad-2.json"], "missing", 3),
        (["notes.txt", "manifest-x.json"], "missing", 0),
    ],
)
def test_a_listing_says_the_state_and_the_generation_that_counts(
    names: list[str], status: str, generation: int
) -> None:
    state = state_of(*names)
    assert (state.status, state.generation) == (status, generation)


def test_only_claims_on_the_generation_that_counts_count() -> None:
    assert state_of("claims/0-4.json").last_claim == (4, "claims/0-4.json")
    assert state_of("claims/0-4.json", "bad-0.json").last_claim is None
    assert state_of("claims/1-9.json", "claims/1-10.json", "bad-0.json").last_claim == (10, "claims/1-10.json")


@given(st.text(max_size=30), st.floats(allow_nan=False, allow_infinity=False))
def test_a_sealed_record_comes_back(text: str, number: float) -> None:
    note = Note.unseal(Note(text=text, number=number).seal())
    assert (note.text, note.number) == (text, number)


@given(st.data())
def test_a_flipped_bit_anywhere_in_a_sealed_record_is_noticed(data: st.DataObject) -> None:
    sealed = bytearray(Note(text="a word or two", number=1764079200.25).seal())
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError, match=r"checksum|not a valid document"):
        Note.unseal(bytes(sealed))


def test_a_truncated_sealed_record_is_noticed() -> None:
    with pytest.raises(ValueError, match="not a valid document"):
        Note.unseal(Note(text="x", number=1).seal()[:-3])
