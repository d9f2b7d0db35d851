from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_runtime.data.chat import TextEncoder
from distill_runtime.data.samples import PLAIN_TEXT_PROMPT_TOKENS, sample_examples, split_sequence
from distill_runtime.data.sequence import Sequence
from tests.fixtures.models import tiny_tokenizer


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(tiny_tokenizer())


def encoded(encoder: TextEncoder, row: Mapping[str, object]) -> Sequence:
    (sequence,) = encoder.encode([encoder.render_row(dict(row))])
    assert isinstance(sequence, Sequence)
    return sequence


def test_the_prompt_of_a_sample_is_that_of_a_question_and_the_answer_is_the_datas(encoder: TextEncoder):
    rows = [{"prompt": "two and two?", "completion": "four."}, {"prompt": "where is my card?", "completion": "here"}]
    examples = sample_examples([encoded(encoder, row) for row in rows], encoder, max_new_tokens=9)
    for row, ids, text, answers in zip(rows, examples.prompt_ids, examples.prompts, examples.answers, strict=True):
        asked = encoder.render_prompt(row["prompt"])
        assert ids == encoder.encode_prompt(asked)
        assert text == asked.text
        assert answers == [row["completion"]]
    assert examples.stop_token_ids == encoder.stop_token_ids()
    assert examples.max_new_tokens == 9


def test_of_a_chat_with_several_turns_the_first_answer_is_asked_for(encoder: TextEncoder):
    turns = [("user", "two and two?"), ("assistant", "four."), ("user", "and three?"), ("assistant", "seven.")]
    messages = [{"role": role, "content": content} for role, content in turns]
    examples = sample_examples([encoded(encoder, {"messages": messages})], encoder, max_new_tokens=9)
    assert examples.prompts == [encoder.render_prompt("two and two?").text]
    assert examples.answers == [["four."]]


def test_plain_text_goes_on_behind_its_first_half_or_first_tokens(encoder: TextEncoder):
    for words in (3, 100):
        sequence = encoded(encoder, {"text": "the fox is quick. " * words})
        prompt, answer = split_sequence(sequence)
        assert len(prompt) == min(PLAIN_TEXT_PROMPT_TOKENS, sequence.length // 2)
        assert [*prompt, *answer] == sequence.ids.tolist()


@given(st.lists(st.booleans(), min_size=1, max_size=30).filter(any))
def test_prompt_and_answer_are_neighbours_and_neither_is_empty(later: list[bool]):
    mask = np.array([False, *later])
    sequence = Sequence(np.arange(len(mask), dtype=np.int32), mask)
    prompt, answer = split_sequence(sequence)
    assert len(prompt) >= 1
    assert len(answer) >= 1
    assert np.concatenate([prompt, answer]).tolist() == list(range(len(prompt) + len(answer)))
    assert mask[len(prompt) : len(prompt) + len(answer)].all()
    if not mask[1:].all():
        assert not mask[: len(prompt)].any()
        assert not mask[len(prompt) + len(answer) :][:1].any()
