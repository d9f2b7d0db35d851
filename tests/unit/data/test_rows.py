"""Files as rows, and what is no row."""

import gzip
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_runtime.data.rows import BadRow, Row, read_rows
from distill_runtime.errors import UserError
from tests.unit.data.files import Bytes, json_lines, packed, parquet

ROWS = [{"prompt": 'a, "b"\nc', "completion": "é🙂"}, {"prompt": "d", "completion": " e "}]


def csv(text: str | bytes, uri: str = "file:///data/train.csv") -> Bytes:
    return Bytes(uri, text if isinstance(text, bytes) else text.encode())


CSV = csv('prompt,completion\n"a, ""b""\nc",é🙂\nd, e \n')


@pytest.mark.parametrize("file", [json_lines(ROWS), parquet(ROWS), CSV, packed(json_lines(ROWS)), packed(CSV)])
def test_every_format_gives_the_same_rows(file: Bytes) -> None:
    assert [row.values for row in read_rows([file]) if isinstance(row, Row)] == ROWS


def test_rows_of_several_files_come_in_order_and_know_their_place() -> None:
    first, second = json_lines([{"n": 1}, {"n": 2}], "file:///a.jsonl"), CSV
    places = [row.place for row in read_rows([first, second])]
    # The first row of the CSV file is on lines 2 and 3.
    assert places == ["file:///a.jsonl:1", "file:///a.jsonl:2", "file:///data/train.csv:2", "file:///data/train.csv:4"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": "a" "b"}', "broken JSON (Expecting ',' delimiter, column 16)"),
        ('{"prompt": "a', "broken JSON (Unterminated string starting at, column 12)"),
        ("[" * 100_000, "broken JSON"),
        ("[1, 2]", "the line holds a JSON list, not an object"),
        ('"text"', "the line holds a JSON string, not an object"),
        ("3", "the line holds a JSON number, not an object"),
        ("null", "the line holds a JSON null, not an object"),
    ],
)
def test_a_broken_json_line_is_named_and_the_others_are_read(line: str, reason: str) -> None:
    first, second, third = read_rows([json_lines([{"n": 1}, line, {"n": 3}])])
    assert isinstance(second, BadRow)
    assert second.place == "file:///data/train.jsonl:2"
    assert reason in second.reason
    assert isinstance(first, Row)
    assert isinstance(third, Row)
    assert third.number == 3


def test_blank_lines_are_no_rows_but_count_as_lines() -> None:
    (row, last) = read_rows([json_lines([{"n": 1}, "", "   ", {"n": 4}])])
    assert (row.number, last.number) == (1, 4)


def test_a_byte_order_mark_is_no_part_of_the_first_row() -> None:
    (row,) = read_rows([Bytes("file:///a.jsonl", b"\xef\xbb\xbf" + json_lines([{"n": 1}]).content)])
    assert isinstance(row, Row)


@pytest.mark.parametrize(
    "file",
    [
        Bytes("file:///x.jsonl", b'{"text": "a"}\n{"text": "\xff\xfe"}\n{"text": "b"}\n'),
        csv(b"text\na\n\xff\xfe\nb\n", "file:///x.csv"),
    ],
)
def test_a_line_that_is_not_utf8_is_a_bad_row(file: Bytes) -> None:
    _, bad, _ = read_rows([file])
    assert isinstance(bad, BadRow)
    assert "is not UTF-8" in bad.reason


def test_a_csv_row_of_another_width_is_a_bad_row() -> None:
    rows = list(read_rows([csv("a,b\n1,2\n1,2,3\n\n1\n1,2\n")]))
    assert [row.place.rsplit(":", 1)[1] for row in rows] == ["2", "3", "5", "6"]
    assert [row.reason for row in rows if isinstance(row, BadRow)] == [
        "the row has 3 fields, the header has 2",
        "the row has 1 fields, the header has 2",
    ]


def test_an_open_quote_is_a_bad_row_at_the_line_where_its_row_begins() -> None:
    _, bad = read_rows([csv('a,b\n1,2\n3,"4\n5,6\n')])
    assert isinstance(bad, BadRow)
    assert (bad.number, "broken CSV" in bad.reason) == (3, True)


def test_a_long_csv_field_is_read() -> None:
    (row,) = read_rows([csv("text\n" + "a" * 200_000 + "\n")])
    assert isinstance(row, Row)


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        (Bytes("file:///a.txt", b"x"), r"a\.txt: unknown format \.txt"),
        (Bytes("file:///a.parquet.gz", b"x"), r"unknown format \.parquet\.gz"),
        (Bytes("file:///folder.csv/data", b"x"), "unknown format without an extension"),
        (Bytes("file:///a.parquet", b"PAR1 not really"), "is no readable Parquet file"),
        (Bytes("file:///a.jsonl.gz", b"plain"), "is no whole gzip file"),
        (Bytes("file:///a.jsonl.gz", gzip.compress(b'{"n": 1}\n' * 1000)[:-12]), "is no whole gzip file"),
        (csv("a,b,a\n1,2,3\n"), "names the column 'a' twice"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_ends_in_one_sentence(file: Bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        list(read_rows([file]))


def test_only_the_columns_asked_for_are_read_of_parquet() -> None:
    (row, _) = read_rows([parquet([{"text": "a", "huge": "b"}] * 2)], columns={"text", "messages"})
    assert isinstance(row, Row)
    assert row.values == {"text": "a"}


def test_parquet_without_any_column_asked_for_still_has_its_rows() -> None:
    assert len(list(read_rows([parquet([{"other": "a"}] * 3)], columns={"text"}))) == 3


def test_parquet_keeps_nested_messages() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (row,) = read_rows([parquet([{"messages": messages}])])
    assert isinstance(row, Row)
    assert row.values == {"messages": messages}


@given(rows=st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers(), max_size=3)))
def test_what_is_written_as_json_lines_is_read(rows: list[dict[str, Any]]) -> None:
    assert [row.values for row in read_rows([json_lines(rows)]) if isinstance(row, Row)] == rows
