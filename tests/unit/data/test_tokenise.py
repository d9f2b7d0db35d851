"""From files to sequences, with every row accounted for."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from distill_runtime.data.chat import TextEncoder
from distill_runtime.data.sequence import Sequence
from distill_runtime.data.tokenise import BadRows, Counts, tokenise
from distill_runtime.errors import UserError
from distill_runtime.progress import ProgressReporter
from tests.fixtures.models import tiny_tokenizer
from tests.unit.data.files import Bytes, json_lines

GOOD = {"prompt": "is it two?", "completion": "four."}
LONG = {"prompt": "is it two?", "completion": "four. " * 30}


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(tiny_tokenizer())


def run(
    encoder: TextEncoder,
    *files: Bytes,
    max_bad_rows: int = 0,
    max_length: int = 64,
    too_long: Any = "drop",
    **more: Any,
) -> tuple[list[tuple[int, Sequence]], Counts]:
    counts = Counts()
    sequences = tokenise(
        files,
        encoder,
        name="data.train",
        max_length=max_length,
        too_long=too_long,
        bad=BadRows(limit=max_bad_rows),
        counts=counts,
        **more,
    )
    return list(sequences), counts


def test_every_row_is_counted_and_sequences_know_theirs(encoder: TextEncoder) -> None:
    first = json_lines([GOOD, LONG, "{broken", GOOD], "file:///a.jsonl")
    sequences, counts = run(encoder, first, json_lines([{"prompt": "", "completion": "x"}, GOOD]), max_bad_rows=2)
    assert [number for number, _ in sequences] == [0, 3, 5]
    assert counts.report() == {"rows": 6, "sequences": 3, "droppedRows": 1, "truncatedRows": 0, "badRows": 2}


def test_batches_change_nothing(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": f"is it {n}?", "completion": "four. " * (1 + n % 5)} for n in range(20)]
    mixed = [row if n % 7 else "{broken" for n, row in enumerate(rows)]
    whole = run(encoder, json_lines(mixed), max_bad_rows=9)
    monkeypatch.setattr("distill_runtime.data.tokenise.BATCH_ROWS", 3)
    again = run(encoder, json_lines(mixed), max_bad_rows=9)
    assert [(n, s.digest) for n, s in whole[0]] == [(n, s.digest) for n, s in again[0]]
    assert whole[1] == again[1]


def test_truncated_rows_are_kept_and_counted(encoder: TextEncoder) -> None:
    sequences, counts = run(encoder, json_lines([GOOD, LONG]), too_long="truncate")
    assert [sequence.length for _, sequence in sequences] == [21, 64]
    assert (counts.truncated, counts.dropped) == (1, 0)


def test_a_row_whose_prompt_alone_is_too_long_is_dropped_even_when_cutting(encoder: TextEncoder) -> None:
    long_prompt = {"prompt": "is it two? " * 30, "completion": "four."}
    _, counts = run(encoder, json_lines([GOOD, long_prompt]), too_long="truncate")
    assert (counts.truncated, counts.dropped) == (0, 1)


def test_each_bad_row_is_logged_with_its_place(encoder: TextEncoder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run(encoder, json_lines([GOOD, "{broken", {"text": ""}]), max_bad_rows=2)
    assert "bad row file:///data/train.jsonl:2: broken JSON" in caplog.text
    assert "bad row file:///data/train.jsonl:3: text is empty" in caplog.text


def test_too_many_bad_rows_end_in_a_sentence_with_the_first_and_the_count(encoder: TextEncoder) -> None:
    with pytest.raises(UserError) as caught:
        run(encoder, json_lines([GOOD, "{broken", GOOD, {"text": ""}]), max_bad_rows=1)
    assert caught.value.reason == "BadRow"
    assert str(caught.value).startswith("file:///data/train.jsonl:2: broken JSON (")
    assert "(2 bad rows so far, data.maxBadRows allows 1)" in str(caught.value)


def test_all_rows_too_long_is_said_with_their_number_and_the_limit(encoder: TextEncoder) -> None:
    with pytest.raises(UserError, match=r"all 12 rows of file:///data/train.jsonl are longer than data.maxLength 16"):
        run(encoder, json_lines([GOOD] * 12), max_length=16)


def test_a_file_without_rows_is_said(encoder: TextEncoder) -> None:
    with pytest.raises(UserError, match=r"data\.train: file:///data/train\.jsonl has no rows"):
        run(encoder, json_lines(["", ""]))


def test_nothing_left_for_several_reasons_gives_the_numbers(encoder: TextEncoder) -> None:
    with pytest.raises(UserError, match=r"1 of 2 are bad \(the first: file:///data/train.jsonl:1: broken.*, 1 longer"):
        run(encoder, json_lines(["{broken", GOOD]), max_bad_rows=1, max_length=8)


def test_progress_counts_rows(encoder: TextEncoder, tmp_path: Path) -> None:
    run(encoder, json_lines([GOOD] * 5), progress=ProgressReporter("prepare", tmp_path))
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert (progress["stage"], progress["done"], progress["unit"]) == ("tokenise", 5, "rows")
