"""Chats that call tools: what is learned, and that nothing of it is left out unseen."""

import json
from typing import Any

import pytest

from distill_runtime.data.chat import TextEncoder
from distill_runtime.data.rows import Row, read_rows
from tests.fixtures.models import CHATML
from tests.fixtures.templates import TOOLS, tokenizer_with
from tests.unit.data.encoding import chat, encode, refusal, target_texts
from tests.unit.data.files import parquet

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL: dict[str, Any] = {"type": "function", "function": {"name": "weather", "arguments": {"city": "paris"}}}


def calling(call: Any = CALL, content: Any = None) -> list[dict[str, Any]]:
    """A chat in which the assistant calls a tool and then answers."""
    return [
        {"role": "user", "content": "the weather?"},
        {"role": "assistant", "content": content, "tool_calls": [call]},
        {"role": "tool", "content": "lazy", "name": "weather"},
        {"role": "assistant", "content": "it is lazy."},
    ]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(tokenizer_with(TOOLS))


def test_tools_reach_the_template_and_calls_are_learned(encoder: TextEncoder) -> None:
    sequence = encode(encoder, {"messages": calling(), "tools": [WEATHER]})
    text = str(encoder.tokenizer.decode(sequence.ids))
    assert text.startswith("<|im_start|>system\n" + json.dumps(WEATHER) + "<|im_end|>")
    assert "<|im_start|>tool\nlazy<|im_end|>" in text
    assert target_texts(encoder, sequence) == [
        '<call>weather {"city": "paris"}</call><|im_end|>',
        "it is lazy.<|im_end|>",
    ]


def test_text_beside_a_call_is_learned_with_it(encoder: TextEncoder) -> None:
    sequence = encode(encoder, {"messages": calling(content="the sky."), "tools": [WEATHER]})
    assert target_texts(encoder, sequence)[0] == 'the sky.<call>weather {"city": "paris"}</call><|im_end|>'


@pytest.mark.parametrize(
    "call",
    [
        {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "paris"}'}},
        {"function": {"name": "weather", "arguments": {"city": "paris"}}},
        {"name": "weather", "arguments": {"city": "paris"}},
    ],
)
def test_every_common_form_of_a_call_is_the_same(encoder: TextEncoder, call: Any) -> None:
    one = encode(encoder, {"messages": calling(call), "tools": [WEATHER]})
    assert one.digest == encode(encoder, {"messages": calling(), "tools": [WEATHER]}).digest


@pytest.mark.parametrize("tools", [json.dumps([WEATHER]), [WEATHER["function"]]])
def test_every_common_form_of_tools_is_the_same(encoder: TextEncoder, tools: Any) -> None:
    one = encode(encoder, {"messages": calling(), "tools": tools})
    assert one.digest == encode(encoder, {"messages": calling(), "tools": [WEATHER]}).digest


@pytest.mark.parametrize("tools", [None, [], "", "[]"])
def test_no_tools_are_no_tools(encoder: TextEncoder, tools: Any) -> None:
    row = {"messages": chat("two?", "two.")}
    assert encode(encoder, {**row, "tools": tools}).digest == encode(encoder, row).digest


def test_a_pair_may_have_tools(encoder: TextEncoder) -> None:
    sequence = encode(encoder, {"prompt": "two?", "completion": "two.", "tools": [WEATHER]})
    assert "weather" in str(encoder.tokenizer.decode(sequence.ids))


NAMELESS = TOOLS.replace("call['function']['name'] + ' ' +", "")
WITHOUT_ARGUMENTS = TOOLS.replace("(call['function']['arguments'] | tojson) +", "")
WITHOUT_TEXT = TOOLS.replace("message['content'] }}", "(message['content'] if not message['tool_calls'] else '') }}")
FIRST_TOOL = TOOLS.replace("for tool in tools", "for tool in tools[:1]")
DEAF = TOOLS.replace("+ message['content'] }}", "+ (message['content'] if message['role'] != 'tool' else '') }}")


@pytest.mark.parametrize(
    ("template", "row", "left_out"),
    [
        (CHATML, {"messages": chat("two?", "two."), "tools": [WEATHER]}, "the tool 'weather'"),
        (CHATML, {"messages": calling()}, "the call of 'weather' in message 2"),
        (NAMELESS, {"messages": calling()}, "the call of 'weather' in message 2"),
        (WITHOUT_ARGUMENTS, {"messages": calling()}, "the arguments of the call of 'weather' in message 2"),
        (WITHOUT_TEXT, {"messages": calling(content="the sky.")}, "the content of message 2 (assistant)"),
        (DEAF, {"messages": calling()}, "the content of message 3 (tool)"),
        (
            FIRST_TOOL,
            {"messages": calling(), "tools": [WEATHER, {"name": "clock"}]},
            "the tool 'clock'",
        ),
    ],
)
def test_what_the_template_leaves_out_makes_a_bad_row(template: str, row: Any, left_out: str) -> None:
    reason = refusal(TextEncoder(tokenizer_with(template)), row)
    assert reason.startswith(f"the chat template leaves out {left_out}, ")
    assert "data.chatTemplate" in reason


def test_plain_text_has_no_place_for_tools() -> None:
    encoder = TextEncoder(tokenizer_with(TOOLS), prompt_format="plain")
    assert "the row has tools" in refusal(encoder, {"prompt": "two?", "completion": " two.", "tools": [WEATHER]})
    assert "the row has tools" in refusal(encoder, {"text": "two.", "tools": [WEATHER]})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": calling(), "tools": {"name": "weather"}}, "tools is no list of functions but dict"),
        ({"messages": calling(), "tools": "weather"}, "tools is text that is no JSON"),
        ({"messages": calling(), "tools": [{"type": "function"}]}, "tool 1 has no function name"),
        ({"messages": calling({"function": {"arguments": {}}})}, "tool call 1 of message 2 has no function name"),
        ({"messages": calling({"name": "weather", "arguments": "{"})}, "the arguments of tool call 1 of message 2 is"),
        ({"messages": calling({"name": "weather", "arguments": [1]})}, "are no JSON object but list"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, "message 1 has tool_calls, but only"),
        ({"messages": [*calling()[:2], {"role": "tool", "content": ""}]}, "content of message 3 is empty"),
    ],
)
def test_a_call_that_cannot_be_used_says_why(encoder: TextEncoder, row: dict[str, Any], reason: str) -> None:
    assert reason in refusal(encoder, row)


def test_fields_that_parquet_adds_to_a_struct_are_not_there(encoder: TextEncoder) -> None:
    clock = {
        "type": "function",
        "function": {
            "name": "clock",
            "description": "The time.",
            "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}},
        },
    }
    at = {"name": "clock", "arguments": {"zone": "paris"}}
    rows = [
        {"messages": calling(), "tools": [WEATHER, clock]},
        {"messages": calling({"type": "function", "function": at}), "tools": [clock]},
    ]
    for row, stored in zip(rows, read_rows([parquet(rows)]), strict=True):
        assert isinstance(stored, Row)
        assert encode(encoder, stored.values).digest == encode(encoder, row).digest
