"""How many bytes a target's signal takes."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from distill_runtime.contract.run import Work
from distill_runtime.signals.codec import DTYPES
from distill_runtime.signals.row_format import RowFormat, held_out_row, training_row
from distill_runtime.signals.rows import decode_rows, stand_in_rows
from distill_runtime.signals.teacher_rows import HiddenRows, SampledRows, TopKRows
from tests.fixtures.signal_jobs import some_head

QWEN_HIDDEN, QWEN_VOCABULARY = 2560, 151_936
"""Qwen3-4B."""
CONCEPTS = Path(__file__).parents[3] / "docs" / "concepts.md"


def work(signal: dict[str, Any], temperature: float = 1.0) -> Work:
    return Work.model_validate(
        {
            "teacher": {"model": "file:///t"},
            "student": {"model": "file:///s"},
            "data": {"train": "file:///d"},
            "storage": {"uri": "file:///store"},
            "signal": signal,
            "objective": {"temperature": temperature},
        }
    )


def row_of(signal: dict[str, Any], *, hidden: int = QWEN_HIDDEN, vocabulary: int = QWEN_VOCABULARY) -> RowFormat:
    return training_row(work(signal), hidden_size=hidden, vocabulary=vocabulary)


@pytest.mark.parametrize(
    ("signal", "wanted"),
    [
        ({}, 5120),
        ({"dtype": "float32"}, 10_240),
        ({"kind": "topk"}, 64 * (4 + 2) + 2),
        ({"kind": "topk", "dtype": "float32"}, 64 * (4 + 4) + 4),
        ({"kind": "topk", "k": 8}, 8 * (4 + 2) + 2),
        ({"kind": "sampled"}, 64 * 4),
        ({"kind": "sampled", "dtype": "float32"}, 64 * 4),
        ({"kind": "sampled", "samples": 50}, 50 * 4),
    ],
)
def test_bytes_of_a_target_at_the_size_of_qwen3_4b(signal: dict[str, Any], wanted: int) -> None:
    assert row_of(signal).row_bytes == wanted


def test_the_documented_bytes_are_those_of_the_format() -> None:
    documented = dict(
        re.findall(r"^\| `(hidden|topk|sampled)` \|.*\| ([\d,]+) \|$", CONCEPTS.read_text(), re.MULTILINE)
    )
    assert {kind: int(size.replace(",", "")) for kind, size in documented.items()} == {
        kind: row_of({"kind": kind}).row_bytes for kind in ("hidden", "topk", "sampled")
    }


@pytest.mark.parametrize(("vocabulary", "size"), [(256, 1), (257, 2), (65_536, 2), (65_537, 4), (QWEN_VOCABULARY, 4)])
def test_ids_take_the_narrowest_type_of_the_vocabulary(vocabulary: int, size: int) -> None:
    assert row_of({"kind": "sampled", "samples": 1}, vocabulary=vocabulary).row_bytes == size


@pytest.mark.parametrize("kind", ["hidden", "topk", "sampled"])
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_held_out_data_has_hidden_states_whatever_the_training_reads(kind: str, dtype: str) -> None:
    row = held_out_row(work({"kind": kind, "dtype": dtype}), hidden_size=7)
    assert (row.kind, row.width) == ("hidden", 7)
    assert row.dtype == ("float32" if dtype == "float32" else "bfloat16")
    if kind == "hidden":
        assert row == training_row(work({"dtype": dtype}), hidden_size=7, vocabulary=9)


@pytest.mark.parametrize(("kind", "k"), [("hidden", 1), ("topk", 5), ("topk", 33), ("sampled", 1)])
@pytest.mark.parametrize("targets", [0, 1, 3])
def test_rows_that_stand_in_are_valid_and_of_the_right_size(kind: str, k: int, targets: int) -> None:
    row = row_of({"kind": kind, "k": k, "samples": 40}, hidden=8, vocabulary=33)
    stored = stand_in_rows(row, targets)
    assert stored.shape == (targets, row.columns)
    assert stored.dtype == DTYPES[row.stored_dtype]
    assert stored.nbytes == targets * row.row_bytes
    match decode_rows(stored, row, some_head()):
        case HiddenRows(states=states):
            assert bool(torch.isfinite(states).all())
        case TopKRows(ids=ids, log_probabilities=logs, log_tail=tail):
            assert all(len(set(some)) == k for some in ids.tolist())
            total = logs.exp().sum(-1) + tail.exp()
            torch.testing.assert_close(total, torch.ones(targets))
            assert bool((tail.isneginf() == (k == 33)).all()), "a tail needs ids, and ids a tail"
        case SampledRows(ids=ids, weights=weights):
            torch.testing.assert_close(weights.sum(-1), torch.ones(targets))
            assert not targets or int(ids.max()) < 33


def test_a_large_k_costs_more_than_hidden_states_from_a_known_size_on() -> None:
    smallest = math.ceil((QWEN_HIDDEN * 2 - 2) / 6)
    assert row_of({"kind": "topk", "k": smallest}).row_bytes >= row_of({}).row_bytes
    assert row_of({"kind": "topk", "k": smallest - 1}).row_bytes < row_of({}).row_bytes
