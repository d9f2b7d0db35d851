"""Evaluation tasks: examples and, for classification, one sequence for each label."""

from typing import Any

import pytest

from distill_runtime.contract.sections import ClassificationTask, QuestionAnsweringTask
from distill_runtime.data.chat import TextEncoder
from distill_runtime.data.tasks import make_examples
from distill_runtime.errors import UserError
from tests.fixtures.models import tiny_tokenizer
from tests.unit.data.files import Bytes, json_lines

ROWS = [
    {"prompt": "where is my card?", "label": "card"},
    {"prompt": "how long {is} it?", "label": "transfer"},
    {"prompt": "why twice?", "label": "card"},
]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(tiny_tokenizer())


def classification(**more: Any) -> ClassificationTask:
    return ClassificationTask(kind="classification", name="intents", data="file:///x.jsonl", **more)


def answering(**more: Any) -> QuestionAnsweringTask:
    return QuestionAnsweringTask(kind="questionAnswering", name="questions", data="file:///x.jsonl", **more)


def make(task: Any, file: Bytes, encoder: TextEncoder, max_length: int = 128):
    return make_examples(task, [file], encoder, max_length=max_length)


def test_each_example_has_a_sequence_for_each_label_whose_targets_are_the_label_and_the_end(
    encoder: TextEncoder,
) -> None:
    examples, sequences = make(classification(labels=["transfer", "card", "other"]), json_lines(ROWS), encoder)
    assert examples.labels == ["transfer", "card", "other"]
    assert examples.answers == [["card"], ["transfer"], ["card"]]
    assert [number for number, _ in sequences] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for place, (number, sequence) in enumerate(sequences):
        targets = encoder.tokenizer.decode(sequence.ids[sequence.targets])
        assert targets == examples.labels[place % 3] + "<|im_end|>"
        prompt = examples.prompt_ids[number]
        assert sequence.ids[: len(prompt)].tolist() == prompt
        assert sequence.targets[0] == len(prompt)


def test_labels_that_are_not_given_are_those_of_the_data_sorted(encoder: TextEncoder) -> None:
    examples, _ = make(classification(), json_lines(ROWS), encoder)
    assert examples.labels == ["card", "transfer"]
    assert examples.max_new_tokens == 0


def test_numbers_may_be_labels(encoder: TextEncoder) -> None:
    examples, _ = make(
        classification(), json_lines([{"prompt": "a", "label": 1}, {"prompt": "b", "label": 0}]), encoder
    )
    assert examples.labels == ["0", "1"]


def test_the_template_is_put_around_the_question_and_other_braces_mean_themselves(encoder: TextEncoder) -> None:
    task = classification(prompt_template="{class}: {prompt}\nIntent?")
    examples, _ = make(task, json_lines(ROWS), encoder)
    assert examples.prompts[1] == "{class}: how long {is} it?\nIntent?"
    assert "{class}: how long {is} it?\nIntent?<|im_end|>" in str(encoder.tokenizer.decode(examples.prompt_ids[1]))


def test_a_limit_reads_no_more_rows(encoder: TextEncoder) -> None:
    examples, sequences = make(classification(limit=2), json_lines([*ROWS[:2], "{broken"]), encoder)
    assert (len(examples.prompts), len(sequences)) == (2, 4)


def test_without_a_template_the_label_follows_the_prompt_and_the_end_follows_it() -> None:
    encoder = TextEncoder(tiny_tokenizer(None))
    task = classification(prompt_template="{prompt}\nIntent:")
    examples, sequences = make(task, json_lines(ROWS), encoder)
    assert encoder.tokenizer.decode(sequences[0][1].ids) == "where is my card?\nIntent:card<|im_end|>"
    assert examples.prompt_ids[0] == sequences[0][1].ids[: sequences[0][1].targets[0]].tolist()


def test_answers_are_a_text_or_a_list_of_texts(encoder: TextEncoder) -> None:
    rows = [{"prompt": "two and two?", "completion": ["four", "4"]}, {"prompt": "capital?", "completion": "paris"}]
    examples, sequences = make(answering(max_new_tokens=7), json_lines(rows), encoder)
    assert examples.answers == [["four", "4"], ["paris"]]
    assert (examples.labels, sequences, examples.max_new_tokens) == ([], [], 7)
    assert examples.stop_token_ids == [2]
    assert str(encoder.tokenizer.decode(examples.prompt_ids[0])).endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("task", "rows", "sentence"),
    [
        (classification(labels=["a", "b"]), ROWS, r"jsonl:1: the label 'card' is not among labels \(a, b\)"),
        (classification(labels=["a", "b", "a"]), ROWS, r"labels names 'a' twice"),
        (classification(), ROWS[:1], "all its rows have the label 'card'"),
        (classification(), [*ROWS, "{broken"], r"jsonl:4: broken JSON"),
        (classification(), [*ROWS, {"prompt": "x"}], r"jsonl:4 has no column 'label' \(columns: prompt\)"),
        (classification(), [*ROWS, {"prompt": " ", "label": "card"}], r"jsonl:4: prompt must be a text"),
        (classification(), [*ROWS, {"prompt": "x", "label": None}], r"jsonl:4: label must hold a text"),
        (classification(), [*ROWS, {"prompt": "x", "label": ["card"]}], r"jsonl:4: label must hold a text"),
        (classification(), [*ROWS, {"prompt": "x" * 300, "label": "card"}], r"jsonl:4 has \d+ tokens.*maxLength 128"),
        (classification(), [], "has no rows"),
        (classification(prompt_template="Intent?"), ROWS, r"promptTemplate has no \{prompt\}"),
        (answering(), [{"prompt": "x", "completion": []}], r"jsonl:1: completion is an empty list"),
        (answering(), [{"prompt": "x", "completion": ["a", ""]}], r"jsonl:1: completion must hold texts"),
        (answering(), [{"prompt": "x" * 300, "completion": "a"}], r"jsonl:1 has \d+ tokens"),
    ],
)
def test_what_cannot_be_scored_ends_in_a_sentence(encoder: TextEncoder, task: Any, rows: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=f"evaluation.tasks {task.name}: .*{sentence}"):
        make(task, json_lines(rows), encoder)
