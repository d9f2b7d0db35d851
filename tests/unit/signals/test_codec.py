"""Rows to bytes and back."""

from io import BytesIO

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from distill_runtime.errors import RetryError
from distill_runtime.signals.codec import DTYPES, TENSOR, SpanCorrupt, decode_span, encode_shard
from distill_runtime.signals.row_format import RowFormat

TARGETS = st.lists(st.integers(0, 5), min_size=1, max_size=6)
WIDTH = st.integers(1, 9)
DTYPE = st.sampled_from(["bfloat16", "float32"])


def hidden(width: int, dtype: str) -> RowFormat:
    return RowFormat.model_validate({"kind": "hidden", "dtype": dtype, "width": width})


def random_rows(targets: list[int], width: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, width, generator=generator) * 10 for count in targets]


@settings(max_examples=80, deadline=None)
@given(TARGETS, WIDTH, DTYPE, st.integers(0, 1000))
def test_each_sequence_comes_back_bit_by_bit_from_its_own_byte_range(
    targets: list[int], width: int, dtype: str, seed: int
) -> None:
    rows = random_rows(targets, width, seed)
    encoded = encode_shard(rows, targets, hidden(width, dtype))
    end = len(encoded.data)
    for block, span in zip(reversed(rows), reversed(encoded.spans), strict=True):
        assert span.start + span.length == end, "ranges follow each other without a gap"
        end = span.start
        stored = memoryview(encoded.data)[span.start : span.start + span.length]
        assert torch.equal(decode_span(stored, span, hidden(width, dtype)), block.to(DTYPES[dtype]))


def test_an_encoded_shard_is_a_plain_safetensors_file() -> None:
    rows = random_rows([2, 3], 4, 0)
    tensors = load(encode_shard(rows, [2, 3], hidden(4, "float32")).data)
    assert list(tensors) == [TENSOR]
    assert torch.equal(tensors[TENSOR], torch.cat(rows))


def test_rows_already_in_the_stored_precision_are_not_changed() -> None:
    rows = [torch.randn(3, 4).bfloat16()]
    encoded = encode_shard(rows, [3], hidden(4, "bfloat16"))
    (span,) = encoded.spans
    data = encoded.data[span.start :]
    assert torch.equal(decode_span(data, span, hidden(4, "bfloat16")), rows[0])


@settings(max_examples=60, deadline=None)
@given(TARGETS.filter(any), WIDTH, DTYPE, st.data())
def test_a_flipped_bit_in_a_range_is_noticed(targets: list[int], width: int, dtype: str, data: st.DataObject) -> None:
    encoded = encode_shard(random_rows(targets, width, 1), targets, hidden(width, dtype))
    span = data.draw(st.sampled_from([span for span in encoded.spans if span.rows]))
    damaged = bytearray(encoded.data[span.start : span.start + span.length])
    damaged[data.draw(st.integers(0, span.length - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SpanCorrupt):
        decode_span(bytes(damaged), span, hidden(width, dtype))


def test_a_range_that_is_too_short_is_noticed() -> None:
    encoded = encode_shard(random_rows([2], 4, 0), [2], hidden(4, "float32"))
    (span,) = encoded.spans
    with pytest.raises(SpanCorrupt, match="where 32 were written"):
        decode_span(BytesIO(encoded.data[span.start :]).read(span.length - 1), span, hidden(4, "float32"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_states_that_are_not_finite_are_refused_and_the_sequence_is_named(value: float, dtype: str) -> None:
    rows = random_rows([2, 3, 1], 4, 0)
    rows[1][2, 3] = value
    with pytest.raises(RetryError, match=r"sequence 1 of shard 9 aren't finite") as refused:
        encode_shard(rows, [2, 3, 1], hidden(4, dtype), name="shard 9")
    assert refused.value.reason == "SignalRefused"


def test_a_value_that_only_the_cast_makes_infinite_is_refused() -> None:
    rows = [torch.full((1, 2), torch.finfo(torch.float32).max)]
    encode_shard(rows, [1], hidden(2, "float32"))
    with pytest.raises(RetryError, match="aren't finite in bfloat16"):
        encode_shard(rows, [1], hidden(2, "bfloat16"))


@pytest.mark.parametrize(
    ("targets", "message"),
    [([2], "answered 2 of the 1"), ([2, 2], r"sequence 1 .* shape \(3, 4\), not \(2, 4\)")],
)
def test_other_row_counts_than_asked_for_are_refused(targets: list[int], message: str) -> None:
    with pytest.raises(RetryError, match=message):
        encode_shard(random_rows([2, 3], 4, 0), targets, hidden(4, "float32"))


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(RetryError, match="sequence 1"):
        encode_shard([torch.zeros(1, 4), torch.zeros(1, 5)], [1, 1], hidden(4, "float32"))


def test_a_decoded_sequence_does_not_keep_the_whole_shard_in_memory() -> None:
    encoded = encode_shard(random_rows([1, 100], 4, 0), [1, 100], hidden(4, "float32"))
    span = encoded.spans[0]
    stored = memoryview(encoded.data)[span.start : span.start + span.length]
    assert decode_span(stored, span, hidden(4, "float32")).untyped_storage().nbytes() == span.length
