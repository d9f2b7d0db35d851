"""Examples of an evaluation task, or samples, as `prepare` stores them for whoever asks a model."""

from typing import Literal

from distill_runtime.prepared import Record


class TaskExamples(Record):
    """All examples of one task, rendered and tokenised.

    For classification the task's plan has one sequence for each (example, label), examples first: sequence
    `example * len(labels) + label` is the prompt, the label's text and the end of the turn; the targets are the label's
    tokens and the end of the turn.
    """

    name: str
    kind: Literal["classification", "questionAnswering", "samples"]
    labels: list[str]
    """Classification: all labels, in the order of the plan. Else empty."""
    prompts: list[str]
    """The question of each example, as the user would write it; of samples the whole prompt with its special tokens."""
    prompt_ids: list[list[int]]
    """Ids of each prompt, chat template and generation prompt included."""
    answers: list[list[str]]
    """Right answers of each example: one label for classification, one or more texts for question answering, the data's
    own for samples."""
    stop_token_ids: list[int]
    """Ids that end a generated answer."""
    max_new_tokens: int
    """Longest generated answer. 0 for classification."""
