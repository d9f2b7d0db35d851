"""From the log-probabilities of labels to the labels that are chosen."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from distill_runtime.data.examples import TaskExamples
from distill_runtime.evaluation.results import LabelScores


@dataclass(frozen=True)
class ChosenLabels:
    """The most likely label of each example."""

    texts: list[str]
    """[examples]"""
    confidence: NDArray[np.float64]
    """Its probability among the task's labels. [examples]"""


def choose_labels(examples: TaskExamples, scores: LabelScores) -> ChosenLabels:
    """The most likely label of each example, and its probability where the labels' probabilities add up to one.

    Of equally likely labels the one that comes first in the task's list wins.
    """
    by_label = np.array(scores.log_probabilities, dtype=np.float64).reshape(-1, len(examples.labels))
    chosen = by_label.argmax(axis=1)
    return ChosenLabels(
        texts=[examples.labels[number] for number in chosen],
        confidence=softmax(by_label, axis=1)[np.arange(len(chosen)), chosen],
    )
