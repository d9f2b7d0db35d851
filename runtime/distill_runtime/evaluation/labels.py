"""From the log-probabilities of labels to the labels that are chosen."""

from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from distill_runtime.contract.sections import LabelNormalisation
from distill_runtime.data.examples import TaskExamples
from distill_runtime.data.plan import Plan
from distill_runtime.evaluation.results import LabelScores


@dataclass(frozen=True)
class ChosenLabels:
    """The most likely label of each example."""

    texts: list[str]
    """[examples]"""
    confidence: NDArray[np.float64]
    """Its probability among the task's labels. [examples]"""


def label_lengths(normalisation: LabelNormalisation, examples: TaskExamples, plan: Plan) -> NDArray[np.float64]:
    """What each label's log-probability is divided by.

    `characters` and `bytes` are those of the label's text alone, as in lm-evaluation-harness, where `acc_norm` and
    `acc_bytes` divide by them; `tokens` are those that the log-probability is of, the end of the turn included.

    Parameters
    ----------
    plan
        The task's plan: one sequence for each (example, label).

    Returns
    -------
    NDArray
        [examples, labels], or [labels] where it is the same for all examples
    """
    match normalisation:
        case "none":
            return np.ones(len(examples.labels))
        case "tokens":
            return plan.target_counts.reshape(-1, len(examples.labels)).astype(np.float64)
        case "characters":
            return np.array([len(label) for label in examples.labels], dtype=np.float64)
        case "bytes":
            return np.array([len(label.encode()) for label in examples.labels], dtype=np.float64)
        case unknown:
            assert_never(unknown)


def choose_labels(
    examples: TaskExamples, scores: LabelScores, lengths: NDArray[np.float64] | float = 1.0
) -> ChosenLabels:
    """The label with the greatest log-probability per length for each example, and its probability.

    The probability is the softmax over the task's labels of what is compared. Of equally likely labels the one that
    comes first in the task's list wins. `lengths` are those of `label_lengths`.
    """
    by_label = np.array(scores.log_probabilities, dtype=np.float64).reshape(-1, len(examples.labels)) / lengths
    chosen = by_label.argmax(axis=1)
    return ChosenLabels(
        texts=[examples.labels[number] for number in chosen],
        confidence=softmax(by_label, axis=1)[np.arange(len(chosen)), chosen],
    )
