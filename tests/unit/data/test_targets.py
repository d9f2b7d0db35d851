"""Which tokens are targets: counted by hand, cross-checked by decoding, and for templates of every kind."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from distill_runtime.contract.sections import Columns
from distill_runtime.data.chat import TextEncoder
from distill_runtime.data.readings import fit
from distill_runtime.errors import UserError
from tests.fixtures.models import CHATML, tiny_tokenizer
from tests.unit.data.encoding import chat, encode, refusal, target_texts

CHATML_MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{{ '\n' }}{% else %}{{ message['content'] + '<|im_end|>' + '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THINKING_PROMPT = CHATML.replace(
    "assistant\n' }}{% endif %}", "assistant\n<think>\n\n</think>\n\n' }}{% endif %}"
).replace(
    "message['role'] + '\n' +",
    "message['role'] + '\n' + ('<think>\n\n</think>\n\n' if message['role'] == 'assistant' else '') +",
)
"""Each answer, and the generation prompt, has an empty thinking block."""
THINKING_LAST = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'].split('</think>')[-1].lstrip('\n') + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As Qwen3's: the last answer alone has an empty thinking block, and what was thought is dropped from history."""
CLOSING = CHATML + "{% if not add_generation_prompt %}{{ '<|endoftext|>' }}{% endif %}"
"""As Phi-3's: an end-of-text token behind the whole chat."""
REWRITING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] if loop.last else message['content'][:4] }}{{ '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Cuts earlier turns short."""
NO_END = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
"""No special token anywhere."""

CONTENTS = (
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
    .filter(lambda text: text.strip() != "")
    .filter(lambda text: "<" not in text)
)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(tiny_tokenizer())


@pytest.fixture(scope="module")
def marked() -> TextEncoder:
    return TextEncoder(tiny_tokenizer(CHATML_MARKED))


def test_targets_of_a_single_turn_chat_counted_by_hand(encoder: TextEncoder) -> None:
    sequence = encode(encoder, {"messages": chat("is it two?", "four.")})
    # <|im_start|> user \n | is ␣i t ␣two ? <|im_end|> \n | <|im_start|> as sis tant \n | f ou r . <|im_end|> | \n
    assert sequence.ids.tolist() == [
        *(1, 333, 202), *(263, 287, 87, 297, 34, 2, 202), *(1, 274, 327, 379, 202), *(73, 281, 85, 17, 2), 202,
    ]  # fmt: skip
    assert sequence.targets.tolist() == [15, 16, 17, 18, 19]
    assert sequence.signal_positions.tolist() == [14, 15, 16, 17, 18]


def test_targets_of_a_multi_turn_chat_counted_by_hand(encoder: TextEncoder) -> None:
    sequence = encode(encoder, {"messages": chat("two?", "two.", "four?", "the fox")})
    # <|im_start|> user \n | t w o ? <|im_end|> \n | <|im_start|> as sis tant \n | t w o . <|im_end|> | \n
    # <|im_start|> user \n | f ou r ? <|im_end|> \n | <|im_start|> as sis tant \n | the ␣fox <|im_end|> | \n
    assert sequence.ids.tolist() == [
        *(1, 333, 202), *(87, 90, 82, 34, 2, 202), *(1, 274, 327, 379, 202), *(87, 90, 82, 17, 2), 202,
        *(1, 333, 202), *(73, 281, 85, 34, 2, 202), *(1, 274, 327, 379, 202), *(330, 354, 2), 202,
    ]  # fmt: skip
    assert sequence.targets.tolist() == [14, 15, 16, 17, 18, 34, 35, 36]


def test_targets_of_a_chat_with_a_system_turn_counted_by_hand(encoder: TextEncoder) -> None:
    sequence = encode(encoder, {"messages": chat("dog?", "fox.", system="be lazy.")})
    # <|im_start|> sy stem \n | b e ␣lazy . <|im_end|> \n | <|im_start|> user \n | do g ? <|im_end|> \n
    # <|im_start|> as sis tant \n | f ox . <|im_end|> | \n
    assert sequence.ids.tolist() == [
        *(1, 326, 378, 202), *(69, 72, 393, 17, 2, 202), *(1, 333, 202), *(277, 74, 34, 2, 202),
        *(1, 274, 327, 379, 202), *(73, 322, 17, 2), 202,
    ]  # fmt: skip
    assert sequence.targets.tolist() == [23, 24, 25, 26]


@given(turns=st.lists(st.tuples(CONTENTS, CONTENTS), min_size=1, max_size=4), system=st.none() | CONTENTS)
@settings(max_examples=150, deadline=None)
def test_targets_of_any_chat_decode_to_the_answers_and_their_ends(
    encoder: TextEncoder, turns: list[tuple[str, str]], system: str | None
) -> None:
    sequence = encode(encoder, {"messages": chat(*(text for turn in turns for text in turn), system=system)})
    assert target_texts(encoder, sequence) == [answer + "<|im_end|>" for _, answer in turns]


@given(turns=st.lists(st.tuples(CONTENTS, CONTENTS), min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_a_template_with_generation_markers_gives_the_targets_that_it_marks(
    encoder: TextEncoder, marked: TextEncoder, turns: list[tuple[str, str]]
) -> None:
    messages = chat(*(text for turn in turns for text in turn))
    sequence = encode(marked, {"messages": messages})
    assert sequence.digest == encode(encoder, {"messages": messages}).digest
    theirs = marked.tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    assert theirs["input_ids"] == sequence.ids.tolist()  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert theirs["assistant_masks"] == sequence.target_mask.astype(int).tolist()  # pyright: ignore


def test_the_generation_prompts_empty_thinking_block_is_no_target() -> None:
    encoder = TextEncoder(tiny_tokenizer(THINKING_PROMPT))
    sequence = encode(encoder, {"messages": chat("two?", "two.", "four?", "the fox")})
    assert "<think>" in encoder.tokenizer.decode(sequence.ids)
    assert target_texts(encoder, sequence) == ["two.<|im_end|>", "the fox<|im_end|>"]


def test_an_empty_thinking_block_before_the_last_answer_alone_is_no_target() -> None:
    encoder = TextEncoder(tiny_tokenizer(THINKING_LAST))
    sequence = encode(encoder, {"messages": chat("two?", "two.", "four?", "the fox")})
    text = encoder.tokenizer.decode(sequence.ids)
    assert isinstance(text, str)
    assert text.count("<think>") == 1
    assert target_texts(encoder, sequence) == ["two.<|im_end|>", "the fox<|im_end|>"]


def test_thinking_that_the_row_itself_has_is_a_target() -> None:
    encoder = TextEncoder(tiny_tokenizer())
    sequence = encode(encoder, {"messages": chat("two?", "<think>\n\n</think>\n\ntwo.")})
    assert target_texts(encoder, sequence) == ["<think>\n\n</think>\n\ntwo.<|im_end|>"]


def test_a_token_behind_the_whole_chat_does_not_confuse_earlier_turns() -> None:
    encoder = TextEncoder(tiny_tokenizer(CLOSING))
    sequence = encode(encoder, {"messages": chat("two?", "two.", "four?", "the fox")})
    assert target_texts(encoder, sequence) == ["two.<|im_end|>", "the fox<|im_end|>\n<|endoftext|>"]


def test_a_turn_without_a_special_token_is_a_target_to_its_end() -> None:
    encoder = TextEncoder(tiny_tokenizer(NO_END))
    sequence = encode(encoder, {"messages": chat("two?", "two.")})
    assert target_texts(encoder, sequence) == [" two.\n"]


@pytest.mark.parametrize(
    ("template", "messages"),
    [
        (REWRITING, chat("two?", "a long answer", "four?", "the fox")),
        (THINKING_LAST, chat("two?", "<think>one and one</think>two.", "four?", "<think>", "x", "y")),
    ],
)
def test_a_template_that_rewrites_history_is_refused_by_the_row(template: str, messages: list[Any]) -> None:
    encoder = TextEncoder(tiny_tokenizer(template))
    assert "data.chatTemplate" in refusal(encoder, {"messages": messages})


def test_a_template_that_rewrites_history_still_takes_rows_that_it_leaves_as_they_are() -> None:
    encoder = TextEncoder(tiny_tokenizer(REWRITING))
    sequence = encode(encoder, {"messages": chat("two?", "a long answer")})
    assert target_texts(encoder, sequence) == ["a long answer<|im_end|>"]


def test_a_prompt_with_completion_is_a_chat_of_two_turns(encoder: TextEncoder) -> None:
    one = encode(encoder, {"prompt": "is it two?", "completion": "four."})
    assert one.digest == encode(encoder, {"messages": chat("is it two?", "four.")}).digest


@pytest.mark.parametrize(("template", "prompt_format"), [(CHATML, "plain"), (None, "auto")])
def test_a_plain_prompt_is_joined_with_its_completion_and_the_end(template: str | None, prompt_format: Any) -> None:
    encoder = TextEncoder(tiny_tokenizer(template), prompt_format=prompt_format)
    sequence = encode(encoder, {"prompt": "the answer is", "completion": " four."})
    assert encoder.tokenizer.decode(sequence.ids) == "the answer is four.<|im_end|>"
    assert target_texts(encoder, sequence) == [" four.<|im_end|>"]


def test_every_token_of_plain_text_but_the_first_is_a_target(encoder: TextEncoder) -> None:
    sequence = encode(encoder, {"text": "the quick brown fox"})
    assert encoder.tokenizer.decode(sequence.ids) == "the quick brown fox<|im_end|>"
    assert sequence.targets.tolist() == [1, 2, 3, 4]


def test_a_token_across_the_beginning_of_the_answer_is_refused_and_not_guessed() -> None:
    encoder = TextEncoder(tiny_tokenizer(None))
    assert "one token (' fox')" in refusal(encoder, {"prompt": "the quick ", "completion": "fox"})


def test_a_space_at_the_end_of_the_prompt_is_no_target() -> None:
    encoder = TextEncoder(tiny_tokenizer(None))
    sequence = encode(encoder, {"prompt": "the answer is ", "completion": "42"})
    assert target_texts(encoder, sequence) == ["42<|im_end|>"]


def test_truncation_keeps_the_mask_of_what_is_left(encoder: TextEncoder) -> None:
    sequence = encode(encoder, {"messages": chat("two?", "two.", "four?", "the fox")})
    cut, was_cut = fit(sequence, 17, "truncate")
    assert was_cut
    assert cut is not None
    assert cut.ids.tolist() == sequence.ids[:17].tolist()
    assert cut.targets.tolist() == [14, 15, 16]


@pytest.mark.parametrize(
    ("max_length", "too_long", "kept"),
    [(38, "drop", 38), (37, "drop", None), (37, "truncate", 37), (15, "truncate", 15), (14, "truncate", None)],
)
def test_too_long_is_dropped_or_cut_and_dropped_where_no_target_is_left(
    encoder: TextEncoder, max_length: int, too_long: Any, kept: int | None
) -> None:
    sequence = encode(encoder, {"messages": chat("two?", "two.", "four?", "the fox")})
    assert sequence.length == 38
    left, _ = fit(sequence, max_length, too_long)
    assert (left.length if left else None) == kept


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"messages": []}, "messages is empty"),
        ({"messages": "hello"}, "messages is no list"),
        ({"messages": ["hello"]}, "message 1 is no object"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "message 1 has the unknown role 'robot'"),
        ({"messages": [{"content": "hi"}]}, "message 1 has the unknown role None"),
        ({"messages": chat("two?", "  \n")}, "content of message 2 is empty"),
        ({"messages": [{"role": "user", "content": 7}]}, "content of message 1 is no text but int"),
        ({"messages": [{"role": "user"}]}, "content of message 1 is no text but NoneType"),
        ({"messages": chat("two?")}, "no assistant turn"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "begins with the assistant"),
        ({"prompt": "", "completion": "x"}, "prompt is empty"),
        ({"prompt": "x", "completion": 4}, "completion is no text but int"),
        ({"prompt": "x", "completion": "\ud800"}, "half a surrogate pair"),
        ({"text": " "}, "text is empty"),
        ({"prompt": "x", "answer": "y"}, "columns: prompt, answer"),
        ({}, "columns: none"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(encoder: TextEncoder, values: dict[str, Any], reason: str) -> None:
    assert reason in refusal(encoder, values)


def test_a_template_that_refuses_a_chat_makes_a_bad_row() -> None:
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHATML
    encoder = TextEncoder(tiny_tokenizer(template))
    assert "no system turn" in refusal(encoder, {"messages": chat("two?", "two.", system="be lazy.")})
    assert encode(encoder, {"messages": chat("two?", "two.")}).length == 20


def test_a_template_from_the_spec_replaces_the_tokenizers(encoder: TextEncoder) -> None:
    other = TextEncoder(tiny_tokenizer("{{ 'never' }}"), chat_template=CHATML)
    row = {"messages": chat("two?", "two.")}
    assert encode(other, row).digest == encode(encoder, row).digest


def test_columns_may_have_other_names() -> None:
    encoder = TextEncoder(tiny_tokenizer(), columns=Columns(prompt="question", completion="answer"))
    assert encode(encoder, {"question": "two?", "answer": "two."}).length == 20


def test_a_template_that_asks_for_the_date_renders_the_same_on_any_day(encoder: TextEncoder) -> None:
    dated = TextEncoder(tiny_tokenizer("{{ strftime_now('%d %b %Y') }}" + CHATML))
    sequence = encode(dated, {"messages": chat("two?", "two.")})
    assert "26 Jul 2024" in str(dated.tokenizer.decode(sequence.ids))


def test_chats_without_a_template_name_the_field_that_gives_one() -> None:
    encoder = TextEncoder(tiny_tokenizer(None))
    with pytest.raises(UserError, match=r"data\.chatTemplate"):
        encoder.render_row({"messages": chat("two?", "two.")})
    with pytest.raises(UserError, match=r"data\.chatTemplate"):
        TextEncoder(tiny_tokenizer(None), prompt_format="chat")


def test_a_template_that_is_no_jinja_is_refused_with_its_line() -> None:
    with pytest.raises(UserError, match=r"data\.chatTemplate: line 2"):
        TextEncoder(tiny_tokenizer(), chat_template="{{ messages }}\n{% for %}")


def test_truncation_settings_of_a_tokenizer_file_cut_nothing() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(4)
    assert encode(TextEncoder(tokenizer), {"text": "the quick brown fox jumps over the lazy dog"}).length > 4


def test_a_prompt_ends_with_the_generation_prompt(encoder: TextEncoder) -> None:
    ids = encoder.encode_prompt(encoder.render_prompt("is it two?"))
    assert ids == encode(encoder, {"messages": chat("is it two?", "four.")}).ids[:15].tolist()


def test_stop_tokens_are_the_end_of_text_and_the_end_of_the_turn() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    assert TextEncoder(tokenizer).stop_token_ids() == [0, 2]
    assert TextEncoder(tokenizer, prompt_format="plain").stop_token_ids() == [0]


SMOLLM2 = Path(
    os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "distill-operator/models/SmolLM2-135M-Instruct"
)


@pytest.mark.skipif(not SMOLLM2.exists(), reason="SmolLM2 was not converted on this machine (examples/smollm2.py)")
def test_smollm2_targets_are_the_answers_behind_its_default_system_turn() -> None:
    encoder = TextEncoder(AutoTokenizer.from_pretrained(SMOLLM2))
    messages = chat("What is the capital of France?", "Paris. 🙂", "And of Spain?", "Madrid.")
    sequence = encode(encoder, {"messages": messages})
    assert str(encoder.tokenizer.decode(sequence.ids)).startswith("<|im_start|>system\nYou are a helpful AI assistant")
    assert target_texts(encoder, sequence) == ["Paris. 🙂<|im_end|>", "Madrid.<|im_end|>"]
    theirs = encoder.tokenizer.apply_chat_template(messages)
    assert theirs["input_ids"] == sequence.ids.tolist()  # pyright: ignore[reportArgumentType, reportCallIssue]
