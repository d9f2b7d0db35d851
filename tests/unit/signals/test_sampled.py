"""Draws from the teacher: unbiased, the same whenever they are made, and back from their bytes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_runtime.digests import digest_of
from distill_runtime.signals.head import OutputHead
from distill_runtime.signals.row_format import RowFormat
from distill_runtime.signals.rows import encode_rows
from distill_runtime.signals.sampled import decode_sampled, draws_of, encode_sampled
from distill_runtime.signals.teacher_rows import SampledRows
from tests.fixtures.signal_jobs import random_sequences
from tests.unit.signals.test_topk import random_head, random_states

SEQUENCES = 4000
"""Independent rows of draws that are averaged."""
DEVIATIONS = 5.0
"""Standard deviations that a mean may be off: of some hundred means none is, but one time in thousands."""


def format_of(samples: int, vocabulary: int, temperature: float = 1.0) -> RowFormat:
    return RowFormat.model_validate(
        {"kind": "sampled", "dtype": None, "width": samples, "vocabulary": vocabulary, "temperature": temperature}
    )


def dense(rows: SampledRows, vocabulary: int) -> torch.Tensor:
    """[T, V] float64: the weight of every id."""
    return torch.zeros(len(rows), vocabulary, dtype=torch.float64).scatter_add_(1, rows.ids, rows.weights.double())


def mean_weights(states: torch.Tensor, vocabulary: int, samples: int, temperature: float) -> torch.Tensor:
    """[V]: the mean weights of many sequences whose states are all the same."""
    row = format_of(samples, vocabulary, temperature)
    draws = torch.cat([draws_of(digest_of(number), 1, samples) for number in range(SEQUENCES)])
    stored = encode_sampled(states.expand(SEQUENCES, -1), random_head(vocabulary, size=2), row, draws)
    return dense(decode_sampled(stored, row), vocabulary).mean(0)


def outside(mean: torch.Tensor, probabilities: torch.Tensor, samples: int) -> torch.Tensor:
    """[V]: is the mean further from the probability than chance allows?"""
    deviation = (probabilities * (1 - probabilities) / (samples * SEQUENCES)).sqrt()
    return (mean - probabilities).abs() > DEVIATIONS * deviation + 1e-7


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_expected_weights_are_the_teachers_probabilities(temperature: float) -> None:
    vocabulary, samples = 40, 8
    states = random_states(1)
    logits = random_head(vocabulary, size=2).logits(states)[0].double() / temperature
    probabilities = torch.softmax(logits, -1)
    assert not bool(outside(mean_weights(states, vocabulary, samples, temperature), probabilities, samples).any())
    # What a renormalised top-k of as many ids says is far outside of the same bound.
    kept = probabilities.topk(samples)
    renormalised = torch.zeros_like(probabilities).scatter_(0, kept.indices, kept.values / kept.values.sum())
    assert int(outside(renormalised, probabilities, samples).sum()) >= vocabulary // 2


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300), st.integers(0, 6), st.integers(1, 40), st.sampled_from([0.1, 1.0, 50.0]), st.integers(0, 9999)
)
def test_a_row_holds_each_drawn_id_once_with_its_part_of_the_draws(
    vocabulary: int, targets: int, samples: int, size: float, seed: int
) -> None:
    row = format_of(samples, vocabulary)
    draws = draws_of(f"{seed:064x}", targets, samples)
    head, states = random_head(vocabulary, size=size, seed=seed), random_states(targets, seed)
    stored = encode_sampled(states, head, row, draws)
    assert stored.shape == (targets, row.row_bytes)
    rows = decode_sampled(stored, row)
    assert rows.ids.shape == rows.weights.shape == (targets, samples)
    torch.testing.assert_close(rows.weights.sum(-1), torch.ones(targets))
    cumulated = torch.softmax(head.logits(states).double(), -1).cumsum(-1)
    for place in range(targets):
        used = rows.weights[place] > 0
        ids = rows.ids[place][used].tolist()
        assert len(set(ids)) == len(ids)
        assert max(ids) < vocabulary
        assert rows.ids[place][~used].tolist() == [0] * int((~used).sum())
        # Counted one by one from the same numbers; a number on the border between two ids may go to either.
        wanted = [int((cumulated[place] <= number).sum()) for number in draws[place].tolist()]
        counts = dense(rows, vocabulary)[place] * samples
        differ = sum(abs(float(counts[i]) - wanted.count(i)) for i in range(vocabulary))
        assert differ <= 2 + 1e-3


def test_draws_are_a_function_of_the_sequence_and_the_target_alone() -> None:
    one, other = f"{1:064x}", f"{1 << 200:064x}"
    assert torch.equal(draws_of(one, 5, 7), draws_of(one, 5, 7))
    assert torch.equal(draws_of(one, 5, 7)[:3], draws_of(one, 3, 7)), "later targets change nothing"
    assert not torch.equal(draws_of(one, 5, 7), draws_of(other, 5, 7))
    assert len(torch.cat([draws_of(one, 50, 7), draws_of(other, 50, 7)]).unique()) == 2 * 50 * 7


def test_numbers_lie_in_zero_to_one_and_are_spread_evenly() -> None:
    numbers = draws_of(f"{3:064x}", 1000, 100)
    assert 0 <= float(numbers.min()) < 1e-3
    assert 1 - 1e-3 < float(numbers.max()) < 1
    assert float(numbers.mean()) == pytest.approx(0.5, abs=5 * (1 / 12 / 1e5) ** 0.5)


def test_the_draws_never_change_between_versions() -> None:
    """Stored signals of two replicas, or of two versions, must be of the same draws."""
    assert draws_of("0123456789abcdef" * 4, 1, 3).tolist() == PINNED


PINNED = [[0.5345565143046691, 0.3671474662490569, 0.9012762801676591]]


def test_equal_states_give_equal_rows_whatever_is_encoded_beside_them() -> None:
    head, row = random_head(33), format_of(16, 33)
    sequences = random_sequences(6, seed=4)
    states = [random_states(len(sequence.targets), number) for number, sequence in enumerate(sequences)]
    alone = [encode_rows(s, rows, row, head) for s, rows in zip(sequences, states, strict=True)]
    again = [encode_rows(s, rows, row, head) for s, rows in reversed(list(zip(sequences, states, strict=True)))]
    assert all(torch.equal(one, other) for one, other in zip(alone, reversed(again), strict=True))
    other = encode_rows(sequences[1], random_states(len(sequences[1].targets), 0), row, head)
    assert len(other) == len(alone[1])


def test_an_id_without_probability_is_never_drawn_not_even_by_zero() -> None:
    head = random_head(3)
    head.weight.copy_(torch.tensor([[-1e5], [0.0], [1e5]]).expand(3, head.weight.shape[1]))
    row = format_of(4, 3)
    draws = torch.tensor([[0.0, 0.25, 0.5, 1 - 2**-53]], dtype=torch.float64)
    rows = decode_sampled(encode_sampled(torch.ones(1, head.weight.shape[1]), head, row, draws), row)
    assert rows.ids.tolist() == [[2, 0, 0, 0]]
    assert rows.weights.tolist() == [[1.0, 0.0, 0.0, 0.0]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("vocabulary", [200, 70_000])
def test_gpus_draw_what_the_processor_draws(vocabulary: int) -> None:
    head, states, row = random_head(vocabulary), random_states(50), format_of(20, vocabulary)
    draws = draws_of(digest_of("gpu"), 50, 20)
    wanted = dense(decode_sampled(encode_sampled(states, head, row, draws), row), vocabulary)
    moved = OutputHead(head.description, head.weight.cuda())
    rows = decode_sampled(encode_sampled(states.cuda(), moved, row, draws), row)
    found = dense(SampledRows(rows.ids.cpu(), rows.weights.cpu()), vocabulary)
    # A number on the border between two ids may go to either.
    assert float((found - wanted).abs().sum()) * 20 < 0.01 * 50 * 20
