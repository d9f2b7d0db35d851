import math
from collections.abc import Sequence

import numpy as np
import pytest

from distill_runtime.evaluation.labels import ChosenLabels
from distill_runtime.evaluation.metrics import answer_scores, classification_scores


def chosen(texts: Sequence[str], confidence: float = 0.75) -> ChosenLabels:
    return ChosenLabels(texts=list(texts), confidence=np.full(len(texts), confidence))


def test_macro_f1_is_the_mean_over_labels_that_occur_counted_by_hand():
    right = ["a", "a", "b", "b"]
    predicted = ["a", "b", "b", "c"]
    scores = classification_scores(chosen(predicted), right)
    assert scores.examples == 4
    assert scores.accuracy == 0.5
    # a: precision 1, recall 1/2; b: precision 1/2, recall 1/2; c: predicted, never right.
    assert scores.macro_f1 == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_the_calibration_error_compares_the_confidence_in_chosen_labels_with_how_often_they_are_right():
    scores = classification_scores(chosen(["a", "a", "b", "b"], confidence=0.9), ["a", "b", "b", "a"])
    assert scores.expected_calibration_error == pytest.approx(0.4)
    assert classification_scores(chosen([]), []).expected_calibration_error is None


def test_a_label_that_nobody_used_does_not_lower_macro_f1():
    assert classification_scores(chosen(["a", "b"]), ["a", "b"]).macro_f1 == 1.0


def test_no_examples_give_no_scores():
    assert classification_scores(chosen([]), []).accuracy is None
    assert answer_scores([], []).token_f1 is None


@pytest.mark.parametrize(
    ("answer", "right", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1.0, 1.0),
        ("in Paris", ["Paris"], 0.0, 2 / 3),
        ("Rome", ["Paris"], 0.0, 0.0),
        ("", ["Paris"], 0.0, 0.0),
        (" \n", ["Paris"], 0.0, 0.0),
        ("", ["the"], 1.0, 1.0),
        ("two days", ["48 hours", "two days", "2 days"], 1.0, 1.0),
        ("paris paris", ["Paris"], 0.0, 2 / 3),
        ("city of light", ["the city of lights", "light"], 0.0, 2 / 3),
    ],
)
def test_answers_are_compared_after_squad_normalisation(answer: str, right: list[str], exact: float, f1: float):
    scores = answer_scores([answer], [right])
    assert scores.exact_match == exact
    assert scores.token_f1 == pytest.approx(f1)


def test_answer_scores_are_means_over_examples():
    scores = answer_scores(["paris", "", "in rome"], [["Paris"], ["Oslo"], ["Rome", "Roma"]])
    assert scores.examples == 3
    assert scores.exact_match == pytest.approx(1 / 3)
    assert scores.token_f1 == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert math.isfinite(scores.token_f1 or math.nan)


def test_predictions_for_other_examples_are_refused():
    with pytest.raises(ValueError, match="1 predictions for 2 examples"):
        classification_scores(chosen(["a"]), ["a", "b"])
    with pytest.raises(ValueError, match="example 1 has no right answer"):
        answer_scores(["a", "b"], [["a"], []])
