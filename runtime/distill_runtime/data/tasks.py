"""Evaluation tasks: rows to rendered and tokenised examples.

Unlike training data, a row that can't be used ends the job: a task with other examples is another task.
"""

from collections.abc import Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass
from itertools import islice
from typing import Any

from distill_runtime.contract.sections import ClassificationTask, QuestionAnsweringTask
from distill_runtime.data.chat import TextEncoder
from distill_runtime.data.examples import TaskExamples
from distill_runtime.data.rows import BadRow, DataSource, Row, read_rows
from distill_runtime.data.sequence import Sequence
from distill_runtime.data.spans import Rendered, RowError
from distill_runtime.errors import UserError

TASKS_VERSION = 1
"""Part of every task's digest: raised when the same rows would give other examples."""
CHOSEN_LATER = {"normalisation"}
"""Fields of a task that change how stored scores are read, and neither examples nor scores."""
PLACEHOLDER = "{prompt}"
"""What stands for the question in a prompt template."""
BATCH_ROWS = 256


@dataclass(frozen=True)
class _Example:
    place: str
    prompt: str
    """The question with the prompt template around it."""
    answers: list[str]


def make_examples(
    task: ClassificationTask | QuestionAnsweringTask,
    files: Many[DataSource],
    encoder: TextEncoder,
    *,
    max_length: int,
) -> tuple[TaskExamples, list[tuple[int, Sequence]]]:
    """A task's examples, and for classification the sequences of its plan, each with the number of its example.

    Raises
    ------
    UserError
        A row can't be used, has a label that is not among the task's, or is longer than `max_length` tokens; the
        sentence names it. Or there is no row, or only one label.
    """
    if PLACEHOLDER not in task.prompt_template:
        raise _error(task, f"promptTemplate has no {PLACEHOLDER}, so that all its prompts would be the same.")
    examples = list(_read(task, files))
    if not examples:
        raise _error(task, f"{files[0].uri if len(files) == 1 else task.data} has no rows.")
    labels = _labels(task, examples) if isinstance(task, ClassificationTask) else []
    prompt_ids = _prompt_ids(task, examples, encoder, max_length)
    sequences = _sequences(task, examples, labels, encoder, max_length)
    generated = isinstance(task, QuestionAnsweringTask)
    return (
        TaskExamples(
            name=task.name,
            kind=task.kind,
            labels=labels,
            prompts=[example.prompt for example in examples],
            prompt_ids=prompt_ids,
            answers=[example.answers for example in examples],
            stop_token_ids=encoder.stop_token_ids(),
            max_new_tokens=task.max_new_tokens if generated else 0,
        ),
        sequences,
    )


def _read(task: ClassificationTask | QuestionAnsweringTask, files: Many[DataSource]) -> Iterator[_Example]:
    answer_column = task.label_column if isinstance(task, ClassificationTask) else task.answer_column
    rows = read_rows(files, columns={task.prompt_column, answer_column})
    for row in islice(rows, task.limit):
        if isinstance(row, BadRow):
            raise _error(task, f"{row.place}: {row.reason}.")
        prompt = _value(task, row, task.prompt_column)
        if not isinstance(prompt, str) or not prompt.strip():
            raise _error(task, f"{row.place}: {task.prompt_column} must be a text that isn't empty.")
        # Not str.format: braces in questions and templates mean themselves.
        question = task.prompt_template.replace(PLACEHOLDER, prompt)
        yield _Example(row.place, question, _answers(task, row, answer_column))


def _answers(task: ClassificationTask | QuestionAnsweringTask, row: Row, column: str) -> list[str]:
    value = _value(task, row, column)
    several = isinstance(task, QuestionAnsweringTask) and isinstance(value, list)
    answers: list[str] = []
    for answer in value if several else [value]:
        if isinstance(answer, int) and not isinstance(answer, bool):
            answer = str(answer)
        if not isinstance(answer, str) or not answer.strip():
            raise _error(task, f"{row.place}: {column} must hold {'texts' if several else 'a text'} (not empty).")
        answers.append(answer)
    if not answers:
        raise _error(task, f"{row.place}: {column} is an empty list: there must be at least one right answer.")
    return answers


def _value(task: ClassificationTask | QuestionAnsweringTask, row: Row, column: str) -> Any:
    if column not in row.values:
        found = ", ".join(str(name) for name in row.values) or "none"
        raise _error(task, f"{row.place} has no column {column!r} (columns: {found}).")
    return row.values[column]


def _labels(task: ClassificationTask, examples: list[_Example]) -> list[str]:
    if task.labels is None:
        labels = sorted({example.answers[0] for example in examples})
        if len(labels) < 2:
            raise _error(task, f"all its rows have the label {labels[0]!r}: classification needs two; give labels.")
        return labels
    for label in task.labels:
        if task.labels.count(label) > 1:
            raise _error(task, f"labels names {label!r} twice.")
    for example in examples:
        if example.answers[0] not in task.labels:
            known = ", ".join(task.labels[:8]) + (", …" if len(task.labels) > 8 else "")
            raise _error(task, f"{example.place}: the label {example.answers[0]!r} is not among labels ({known}).")
    return list(task.labels)


def _prompt_ids(
    task: ClassificationTask | QuestionAnsweringTask, examples: list[_Example], encoder: TextEncoder, max_length: int
) -> list[list[int]]:
    all_ids: list[list[int]] = []
    for example in examples:
        try:
            ids = encoder.encode_prompt(encoder.render_prompt(example.prompt))
        except RowError as error:
            raise _error(task, f"{example.place}: {error}.") from error
        _check_length(task, example, len(ids), max_length)
        all_ids.append(ids)
    return all_ids


def _sequences(
    task: ClassificationTask | QuestionAnsweringTask,
    examples: list[_Example],
    labels: list[str],
    encoder: TextEncoder,
    max_length: int,
) -> list[tuple[int, Sequence]]:
    """One sequence for each (example, label), examples first; none without labels."""
    sequences: list[tuple[int, Sequence]] = []
    pairs = ((number, example, label) for number, example in enumerate(examples) for label in labels)
    while batch := list(islice(pairs, BATCH_ROWS)):
        rendered = [_render(task, example, label, encoder) for _, example, label in batch]
        for (number, example, label), sequence in zip(batch, encoder.encode(rendered), strict=True):
            if isinstance(sequence, RowError):
                raise _error(task, f"{example.place} with the label {label!r}: {sequence}.") from sequence
            _check_length(task, example, sequence.length, max_length)
            sequences.append((number, sequence))
    return sequences


def _render(
    task: ClassificationTask | QuestionAnsweringTask, example: _Example, label: str, encoder: TextEncoder
) -> Rendered:
    try:
        return encoder.render_pair(example.prompt, label)
    except RowError as error:
        raise _error(task, f"{example.place} with the label {label!r}: {error}.") from error


def _check_length(
    task: ClassificationTask | QuestionAnsweringTask, example: _Example, length: int, max_length: int
) -> None:
    if length > max_length:
        raise _error(
            task,
            f"{example.place} has {length} tokens, more than data.maxLength {max_length}: shorten or remove it, or "
            "raise data.maxLength.",
        )


def _error(task: ClassificationTask | QuestionAnsweringTask, what: str) -> UserError:
    return UserError(f"evaluation.tasks {task.name}: {what}", reason="BadTask")
