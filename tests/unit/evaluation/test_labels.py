import numpy as np
import pytest

from distill_runtime.data.examples import TaskExamples
from distill_runtime.evaluation.labels import choose_labels
from distill_runtime.evaluation.results import LabelScores


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
