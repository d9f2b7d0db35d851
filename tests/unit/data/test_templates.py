"""Templates of the kinds that are in use: targets counted by hand, the choice of turns, the begin-of-text token."""

import logging
from typing import Any

import pytest

from distill_runtime.data.chat import TextEncoder
from tests.fixtures.models import CHATML
from tests.fixtures.templates import CHATML_WITH_DEFAULT, HEADERS, INSTRUCTIONS, TURNS, tokenizer_with
from tests.unit.data.encoding import chat, encode, refusal, target_texts

CHAT = chat("two?", "two.", "four?", "the fox")
COUNTED = {
    # <|im_start|> sy stem \n b e ␣lazy . <|im_end|> \n | <|im_start|> user \n t w o ? <|im_end|> \n
    # <|im_start|> as sis tant \n | t w o . <|im_end|> | \n <|im_start|> user \n f ou r ? <|im_end|> \n
    # <|im_start|> as sis tant \n | the ␣fox <|im_end|> | \n
    "chatml": (CHATML_WITH_DEFAULT, [24, 25, 26, 27, 28], [44, 45, 46], 48),
    # <begin> | <header> user </header> \n \n t w o ? <|eot_id|> | <header> as sis tant </header> \n \n
    # | t w o . <|eot_id|> | <header> user </header> \n \n f ou r ? <|eot_id|> | <header> as sis tant </header> \n \n
    # | the ␣fox <|eot_id|>
    "headers": (HEADERS, [18, 19, 20, 21, 22], [40, 41, 42], 43),
    # <begin> | <start> user \n t w o ? <end> \n | <start> m o d e l \n | t w o . <end> | \n
    # <start> user \n f ou r ? <end> \n | <start> m o d e l \n | the ␣fox <end> | \n
    "turns": (TURNS, [17, 18, 19, 20, 21], [39, 40, 41], 43),
    # <begin> [INST] ␣two ? ␣ [/INST] | ␣two . <end of text> | [INST] ␣four ? ␣ [/INST] | ␣the ␣fox <end of text>
    "instructions": (INSTRUCTIONS, [6, 7, 8], [14, 15, 16], 17),
}
"""Template, targets of the first answer, targets of the second, length: counted by hand."""


@pytest.mark.parametrize("kind", COUNTED)
def test_all_turns_of_the_assistant_are_targets_by_default(kind: str) -> None:
    template, first, last, length = COUNTED[kind]
    sequence = encode(TextEncoder(tokenizer_with(template)), {"messages": CHAT})
    assert sequence.length == length
    assert sequence.targets.tolist() == first + last


@pytest.mark.parametrize("kind", COUNTED)
def test_the_last_turn_alone_where_that_is_asked_for(kind: str) -> None:
    template, _, last, length = COUNTED[kind]
    sequence = encode(TextEncoder(tokenizer_with(template), targets="lastAssistantTurn"), {"messages": CHAT})
    assert sequence.length == length
    assert sequence.targets.tolist() == last


def test_the_last_turn_of_the_assistant_counts_though_the_user_speaks_after_it() -> None:
    encoder = TextEncoder(tokenizer_with(HEADERS), targets="lastAssistantTurn")
    sequence = encode(encoder, {"messages": [*CHAT, {"role": "user", "content": "two?"}]})
    assert sequence.targets.tolist() == [40, 41, 42]


def test_a_template_that_rewrites_earlier_answers_serves_where_only_the_last_is_learned() -> None:
    rewriting = CHATML.replace(
        "message['content']", "(message['content'] if loop.last or loop.index0 % 2 == 0 else message['content'][:4])"
    )
    row = {"messages": chat("two?", "a long answer", "four?", "the fox")}
    assert "data.chatTemplate" in refusal(TextEncoder(tokenizer_with(rewriting)), row)
    encoder = TextEncoder(tokenizer_with(rewriting), targets="lastAssistantTurn")
    assert target_texts(encoder, encode(encoder, row)) == ["the fox<|im_end|>"]


def test_a_chat_that_begins_with_the_assistant_may_be_learned_from_its_last_turn() -> None:
    row = {"messages": [{"role": "assistant", "content": "two."}, *chat("four?", "the fox")]}
    assert "begins with the assistant" in refusal(TextEncoder(tokenizer_with(CHATML)), row)
    encoder = TextEncoder(tokenizer_with(CHATML), targets="lastAssistantTurn")
    assert target_texts(encoder, encode(encoder, row)) == ["the fox<|im_end|>"]


BEGIN = 0
ROWS: dict[str, dict[str, Any]] = {
    "chat": {"messages": CHAT},
    "pair": {"prompt": "two?", "completion": "two."},
    "text": {"text": "the quick brown fox"},
    "text that brings it along": {"text": "<|endoftext|>the quick brown fox"},
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("template", [HEADERS, TURNS, INSTRUCTIONS, CHATML])
def test_a_begin_of_text_token_of_the_tokenizer_stands_once_before_every_row(template: str, row: str) -> None:
    sequence = encode(TextEncoder(tokenizer_with(template, adds_begin_of_text=True)), ROWS[row])
    assert sequence.ids[0] == BEGIN
    assert (sequence.ids == BEGIN).sum() == 1
    assert not sequence.target_mask[0]


@pytest.mark.parametrize("template", [HEADERS, TURNS, INSTRUCTIONS])
def test_a_begin_of_text_token_of_the_template_is_the_same_whether_the_tokenizer_adds_one(template: str) -> None:
    one, other = (TextEncoder(tokenizer_with(template, adds_begin_of_text=adds)) for adds in (False, True))
    assert encode(one, {"messages": CHAT}).digest == encode(other, {"messages": CHAT}).digest
    assert one.encode_prompt(one.render_prompt("two?")) == other.encode_prompt(other.render_prompt("two?"))


def test_a_tokenizer_and_a_template_without_a_begin_of_text_token_get_none() -> None:
    encoder = TextEncoder(tokenizer_with(CHATML))
    assert BEGIN not in encode(encoder, {"messages": CHAT}).ids
    assert BEGIN not in encode(encoder, {"text": "the quick brown fox"}).ids


def test_a_template_that_forgets_the_begin_of_text_token_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    encoder = TextEncoder(tokenizer_with(CHATML, adds_begin_of_text=True))
    with caplog.at_level(logging.WARNING):
        # <begin> <|im_start|> user \n t w o ? <|im_end|> \n <|im_start|> as sis tant \n | t w o . <|im_end|> | \n
        for _ in range(2):
            assert encode(encoder, {"messages": chat("two?", "two.")}).targets.tolist() == [15, 16, 17, 18, 19]
    assert [record.message for record in caplog.records] == [
        "the chat template writes no <|endoftext|>, which the tokenizer puts before every text: it is put before every "
        "chat. Servers that take the template alone leave it out: give them a template that begins with {{ bos_token }}"
    ]


def test_prompts_begin_as_their_sequences_do() -> None:
    for template in (CHATML, HEADERS, INSTRUCTIONS):
        encoder = TextEncoder(tokenizer_with(template, adds_begin_of_text=True))
        ids = encoder.encode_prompt(encoder.render_prompt("two?"))
        (sequence,) = encoder.encode([encoder.render_pair("two?", "two.")])
        assert sequence.ids[: len(ids)].tolist() == ids  # pyright: ignore[reportAttributeAccessIssue]


def test_plain_text_ends_with_one_end_of_text_token_whether_the_tokenizer_adds_one() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizer_with(None)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A <|im_end|>", special_tokens=[("<|endoftext|>", 0), ("<|im_end|>", 2)]
    )
    encoder = TextEncoder(tokenizer)
    sequence = encode(encoder, {"text": "the quick"})
    assert encoder.tokenizer.decode(sequence.ids) == "<|endoftext|>the quick<|im_end|>"
    assert sequence.targets.tolist() == list(range(1, sequence.length))
