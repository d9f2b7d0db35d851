"""Metrics of tasks, from scikit-learn and torchmetrics."""

from collections.abc import Sequence as Many

import torch
from sklearn.metrics import accuracy_score, f1_score

from distill_runtime.contract.report import TaskScores
from distill_runtime.evaluation.calibration import calibration_bins, expected_calibration_error
from distill_runtime.evaluation.labels import ChosenLabels
from distill_runtime.losses.metrics import calibration_sums


def classification_scores(chosen: ChosenLabels, right: Many[str]) -> TaskScores:
    """Accuracy, macro F1 and expected calibration error of chosen labels, one for each example.

    The confidence in a chosen label is its probability among the task's labels.

    Macro F1 is the unweighted mean of F1 over the labels that occur: those that are the right label of at least one
    example or were predicted for at least one. A label that nobody used and nobody predicted doesn't count; a label
    that was predicted but is never right counts with F1 0, as does one that is right at times but never predicted.
    """
    predicted = chosen.texts
    _check_lengths(predicted, right)
    if not right:
        return TaskScores(kind="classification", examples=0)
    correct = [label == wanted for label, wanted in zip(predicted, right, strict=True)]
    bins = calibration_bins(calibration_sums(torch.from_numpy(chosen.confidence), torch.tensor(correct)))
    return TaskScores(
        kind="classification",
        examples=len(right),
        accuracy=float(accuracy_score(right, predicted)),
        macro_f1=float(f1_score(right, predicted, average="macro", zero_division=0.0)),  # pyright: ignore[reportArgumentType]
        expected_calibration_error=expected_calibration_error(bins),
    )


def answer_scores(answers: Many[str], right: Many[Many[str]]) -> TaskScores:
    """Exact match and token F1 of generated answers, each the best over the right answers of its example.

    Both sides are normalised as for SQuAD: lower case, no punctuation, no articles (a, an, the), single spaces. An
    answer that is empty then scores 0, unless a right answer is empty then too.
    """
    _check_lengths(answers, right)
    if not right:
        return TaskScores(kind="questionAnswering", examples=0)
    for number, texts in enumerate(right):
        if not texts:
            raise ValueError(f"example {number} has no right answer")
    # torchmetrics takes many seconds to import: only who has answers to judge waits for it.
    from torchmetrics.functional.text import squad

    scores = squad(
        [{"id": str(number), "prediction_text": answer} for number, answer in enumerate(answers)],
        [
            {"id": str(number), "answers": {"text": list(texts), "answer_start": [0] * len(texts)}}
            for number, texts in enumerate(right)
        ],
    )
    return TaskScores(
        kind="questionAnswering",
        examples=len(right),
        exact_match=float(scores["exact_match"]) / 100,
        token_f1=float(scores["f1"]) / 100,
    )


def _check_lengths(predicted: Many[object], right: Many[object]) -> None:
    if len(predicted) != len(right):
        raise ValueError(f"{len(predicted)} predictions for {len(right)} examples")
