"""The K most likely ids and the mass of the others: what is stored, and what comes back."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_runtime.data.sequence import Sequence
from distill_runtime.errors import RetryError
from distill_runtime.losses import vocabulary
from distill_runtime.signals.head import HeadDescription, OutputHead
from distill_runtime.signals.row_format import RowFormat
from distill_runtime.signals.rows import encode_rows
from distill_runtime.signals.teacher_rows import TopKRows
from distill_runtime.signals.topk import decode_topk, encode_topk, pack_topk
from tests.fixtures.signal_jobs import random_sequences

HIDDEN = 6


def format_of(k: int, vocabulary: int, *, temperature: float = 1.0, dtype: str = "float16") -> RowFormat:
    return RowFormat.model_validate(
        {"kind": "topk", "dtype": dtype, "width": k, "vocabulary": vocabulary, "temperature": temperature}
    )


def random_head(vocabulary: int, *, size: float = 1.0, seed: int = 0, **description: Any) -> OutputHead:
    generator = torch.Generator().manual_seed(seed)
    bias = torch.randn(vocabulary, generator=generator) if description.get("bias") else None
    return OutputHead(
        description=HeadDescription(
            hidden_size=HIDDEN, padded_vocabulary=vocabulary, vocabulary=vocabulary, **description
        ),
        weight=torch.randn(vocabulary, HIDDEN, generator=generator) * size,
        bias=bias,
    )


def random_states(targets: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(targets, HIDDEN, generator=torch.Generator().manual_seed(seed))


def wanted_rows(states: torch.Tensor, head: OutputHead, k: int, temperature: float) -> TopKRows:
    """By sorting the whole distribution, in float64."""
    logs = torch.log_softmax(head.logits(states).double() / temperature, -1)
    kept, ids = logs.sort(dim=-1, descending=True)
    tail = kept[:, k:].logsumexp(-1)
    return TopKRows(ids=ids[:, :k], log_probabilities=kept[:, :k].float(), log_tail=tail.float())


CASES = st.tuples(
    st.integers(1, 300),  # vocabulary
    st.integers(0, 7),  # targets
    st.floats(0.25, 8),  # temperature
    st.sampled_from([0.1, 1.0, 30.0]),  # size of the logits
    st.integers(0, 10_000),  # seed
    st.data(),
)


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_in_float32_the_ids_their_probabilities_and_the_tail_are_exact(case: Any) -> None:
    size, targets, temperature, scale, seed, data = case
    k = data.draw(st.integers(1, size))
    head, states = random_head(size, size=scale, seed=seed), random_states(targets, seed + 1)
    row = format_of(k, size, temperature=temperature, dtype="float32")
    stored = encode_topk(states, head, row)
    assert stored.shape == (targets, row.row_bytes)
    found, wanted = decode_topk(stored, row), wanted_rows(states, head, k, temperature)
    torch.testing.assert_close(found.log_probabilities, wanted.log_probabilities, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(found.log_tail, wanted.log_tail, atol=2e-5, rtol=2e-5)
    logs = torch.log_softmax(head.logits(states).double() / temperature, -1)
    torch.testing.assert_close(logs.gather(1, found.ids).float(), wanted.log_probabilities, atol=2e-5, rtol=2e-5)


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_rows_hold_each_id_once_by_falling_probability_and_sum_to_one(case: Any) -> None:
    size, targets, temperature, scale, seed, data = case
    k = data.draw(st.integers(1, size))
    row = format_of(k, size, temperature=temperature)
    rows = decode_topk(encode_topk(random_states(targets, seed), random_head(size, size=scale, seed=seed), row), row)
    assert rows.ids.dtype == torch.int64
    assert rows.ids.shape == rows.log_probabilities.shape == (targets, k)
    assert all(len(set(ids)) == k and 0 <= min(ids) <= max(ids) < size for ids in rows.ids.tolist())
    assert bool((rows.log_probabilities[:, 1:] <= rows.log_probabilities[:, :-1]).all())
    total = rows.log_probabilities.double().exp().sum(-1) + rows.log_tail.double().exp()
    torch.testing.assert_close(total, torch.ones(targets, dtype=torch.float64), atol=1e-6, rtol=0)
    assert not bool(rows.log_probabilities.isnan().any() or rows.log_tail.isnan().any())


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_float16_costs_at_most_two_to_the_minus_ten_of_a_log_probability(case: Any) -> None:
    size, targets, temperature, scale, seed, data = case
    k = data.draw(st.integers(1, size))
    head, states = random_head(size, size=scale, seed=seed), random_states(targets, seed)
    row = format_of(k, size, temperature=temperature)
    found, wanted = decode_topk(encode_topk(states, head, row), row), wanted_rows(states, head, k, temperature)
    some = torch.isfinite(wanted.log_tail)
    for one, other in (
        (found.log_probabilities, wanted.log_probabilities),
        (found.log_tail[some], wanted.log_tail[some]),
    ):
        # Half of it by rounding; the other half by renormalising, which moves all outcomes alike.
        bound = 2**-10 * (other.abs() + wanted_entropy(wanted).max() if targets else other.abs()) + 1e-6
        assert bool(((one - other).abs() <= bound).all())


def wanted_entropy(rows: TopKRows) -> torch.Tensor:
    """Entropy of the K + 1 outcomes: what rounding can move their sum by is at most 2^−11 of it."""
    logs = torch.cat([rows.log_probabilities, rows.log_tail[:, None]], 1)
    return -(logs.exp() * logs.nan_to_num(neginf=0)).sum(-1)


def test_with_all_ids_kept_the_tail_is_empty() -> None:
    head, row = random_head(9), format_of(9, 9)
    rows = decode_topk(encode_topk(random_states(4), head, row), row)
    assert rows.log_tail.tolist() == [float("-inf")] * 4
    assert bool(torch.isfinite(rows.log_probabilities).all())


def test_a_tail_far_below_the_precision_of_one_is_kept() -> None:
    """One minus the sum of what is kept would say 0, or less."""
    logs = torch.log_softmax(torch.tensor([[0.0, -1.0, -40.0, -41.0, -42.0]], dtype=torch.float64), -1)
    head = OutputHead(
        description=HeadDescription(hidden_size=1, padded_vocabulary=5, vocabulary=5), weight=logs.float().T
    )
    row = format_of(2, 5, dtype="float32")
    rows = decode_topk(encode_topk(torch.ones(1, 1), head, row), row)
    assert rows.log_tail.item() == pytest.approx(float(logs[0, 2:].logsumexp(0)), rel=1e-6)
    assert 1 - float(rows.log_probabilities.exp().sum()) <= 1e-7


def test_what_float16_has_no_number_for_is_stored_as_its_lowest() -> None:
    rows = TopKRows(
        ids=torch.tensor([[3, 1]]),
        log_probabilities=torch.tensor([[0.0, -1e6]]),
        log_tail=torch.tensor([-1e30]),
    )
    row = format_of(2, 300)
    back = decode_topk(pack_topk(rows, row), row)
    assert back.ids.tolist() == [[3, 1]]
    assert back.log_probabilities.tolist() == [[0.0, -65504.0]]
    assert back.log_tail.tolist() == [-65504.0]


@pytest.mark.parametrize("vocabulary", [200, 60_000, 70_000])
def test_the_largest_ids_come_back(vocabulary: int) -> None:
    row = format_of(2, vocabulary)
    ids = torch.tensor([[vocabulary - 1, 0], [vocabulary - 2, vocabulary // 2]])
    logs = torch.full((2, 2), math.log(0.25))
    back = decode_topk(pack_topk(TopKRows(ids, logs, torch.full((2,), math.log(0.5))), row), row)
    assert torch.equal(back.ids, ids)


def test_softcap_scale_and_bias_of_the_head_are_applied() -> None:
    head = random_head(20, size=5, softcap=3.0, scale=0.5, bias=True)
    row = format_of(5, 20, temperature=2.0, dtype="float32")
    found, wanted = (
        decode_topk(encode_topk(random_states(6), head, row), row),
        wanted_rows(random_states(6), head, 5, 2),
    )
    assert torch.equal(found.ids, wanted.ids)
    torch.testing.assert_close(found.log_probabilities, wanted.log_probabilities, atol=1e-5, rtol=0)


def test_no_more_of_the_vocabulary_exists_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    head, row, states = random_head(50), format_of(4, 50), random_states(200)
    whole = encode_topk(states, head, row)
    monkeypatch.setattr(vocabulary, "SMALLEST_CHUNK", 3)
    monkeypatch.setattr(vocabulary, "PROCESSOR_CHUNK_BYTES", 1)
    assert torch.equal(encode_topk(states, head, row), whole)


def test_logits_that_are_not_finite_are_refused_and_the_position_is_named() -> None:
    (sequence,) = random_sequences(1, seed=3)
    states = random_states(len(sequence.targets))
    states[-1] = torch.finfo(torch.float32).max
    row = format_of(2, 9)
    with pytest.raises(RetryError, match=f"position {last_position(sequence)} of sequence {sequence.digest[:12]}"):
        encode_rows(sequence, states, row, random_head(9))


def last_position(sequence: Sequence) -> int:
    return int(sequence.signal_positions[-1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("vocabulary", [200, 70_000])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_gpus_give_the_rows_of_the_processor(vocabulary: int, dtype: str) -> None:
    head, states, row = random_head(vocabulary), random_states(50), format_of(20, vocabulary, dtype=dtype)
    moved = OutputHead(head.description, head.weight.cuda())
    wanted = decode_topk(encode_topk(states, head, row), row)
    stored = encode_topk(states.cuda(), moved, row)
    assert stored.is_cuda
    found = decode_topk(stored, row)
    close = 2e-3 if dtype == "float16" else 2e-5
    torch.testing.assert_close(found.log_probabilities.cpu(), wanted.log_probabilities, atol=close, rtol=close)
    torch.testing.assert_close(found.log_tail.cpu(), wanted.log_tail, atol=close, rtol=close)
    assert float((found.ids.cpu() == wanted.ids).float().mean()) > 0.99
