import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_runtime.contract.sections import LabelNormalisation
from distill_runtime.data.examples import TaskExamples
from distill_runtime.data.plan import Plan, write_plan
from distill_runtime.data.sequence import Sequence
from distill_runtime.evaluation.labels import choose_labels, label_lengths
from distill_runtime.evaluation.results import LabelScores
from distill_runtime.store.directory import DirectoryStore

LABELS = ["no", "größer", "a rather long label", "\u4e2d\u6587"]
TOKENS = [2, 4, 6, 3]
"""Tokens of each label, the end of the turn included."""


def examples(labels: list[str], count: int = 1) -> TaskExamples:
    return TaskExamples(
        name="desks",
        kind="classification",
        labels=labels,
        prompts=["?"] * count,
        prompt_ids=[[1]] * count,
        answers=[[labels[0]]] * count,
        stop_token_ids=[2],
        max_new_tokens=0,
    )


def test_the_most_likely_label_is_chosen_with_its_probability_among_the_labels():
    logs = np.log([[0.02, 0.06], [0.3, 0.1]]).tolist()
    chosen = choose_labels(examples(["a", "b"], 2), LabelScores(log_probabilities=logs))
    assert chosen.texts == ["b", "a"]
    np.testing.assert_allclose(chosen.confidence, [0.75, 0.75])


def test_labels_of_long_texts_that_no_float_could_hold_the_probability_of_have_a_confidence():
    chosen = choose_labels(examples(["a", "b"]), LabelScores(log_probabilities=[[-5000.0, -5001.0]]))
    assert chosen.confidence[0] == pytest.approx(1 / (1 + np.exp(-1)))


def test_of_equally_likely_labels_the_first_wins():
    chosen = choose_labels(examples(["z", "a"]), LabelScores(log_probabilities=[[-3.0, -3.0]]))
    assert chosen.texts == ["z"]
    assert chosen.confidence[0] == 0.5


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Two examples with prompts of three and five tokens."""
    store = DirectoryStore(tmp_path_factory.mktemp("store"))
    sequences = [
        Sequence(np.arange(prompt + tokens, dtype=np.int32), np.arange(prompt + tokens) >= prompt)
        for prompt in (3, 5)
        for tokens in TOKENS
    ]
    return Plan(store, write_plan(store, "plans/labels", enumerate(sequences), shard_sequences=3))


@pytest.mark.parametrize(
    ("normalisation", "lengths"),
    [
        ("none", [1, 1, 1, 1]),
        ("tokens", [TOKENS, TOKENS]),
        ("characters", [2, 6, 19, 2]),
        ("bytes", [2, 8, 19, 6]),
    ],
)
def test_lengths_are_those_that_lm_evaluation_harness_divides_by_or_tokens(
    plan: Plan, normalisation: LabelNormalisation, lengths: list[object]
):
    assert label_lengths(normalisation, examples(LABELS, 2), plan).tolist() == lengths


@given(
    st.lists(st.lists(st.floats(-80, -0.01), min_size=4, max_size=4), min_size=2, max_size=2),
    st.sampled_from(["none", "tokens", "characters", "bytes"]),
)
def test_the_chosen_label_is_the_first_with_the_greatest_quotient(
    plan: Plan, logs: list[list[float]], normalisation: LabelNormalisation
):
    divisors = {
        "none": [1.0] * 4,
        "tokens": TOKENS,
        "characters": [len(label) for label in LABELS],
        "bytes": [len(label.encode("utf-8")) for label in LABELS],
    }[normalisation]
    lengths = label_lengths(normalisation, examples(LABELS, 2), plan)
    chosen = choose_labels(examples(LABELS, 2), LabelScores(log_probabilities=logs), lengths)
    for row, text, confidence in zip(logs, chosen.texts, chosen.confidence, strict=True):
        quotients = [log / divisor for log, divisor in zip(row, divisors, strict=True)]
        assert text == LABELS[quotients.index(max(quotients))]
        assert confidence == pytest.approx(np.exp(max(quotients)) / sum(np.exp(quotients)))


def test_a_long_label_loses_by_its_sum_and_wins_by_its_mean(plan: Plan):
    scores = LabelScores(log_probabilities=[[-4.0, -30.0, -6.0, -30.0]] * 2)
    by_sum = choose_labels(examples(LABELS, 2), scores)
    by_mean = choose_labels(examples(LABELS, 2), scores, label_lengths("tokens", examples(LABELS, 2), plan))
    assert (by_sum.texts, by_mean.texts) == (["no"] * 2, ["a rather long label"] * 2)
