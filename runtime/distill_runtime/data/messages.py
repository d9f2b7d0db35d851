"""Chats as rows give them: checked, with the prompts that the job adds, and with the tools that they may call."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from distill_runtime.data.spans import Message, RowError

ROLES = ("system", "developer", "user", "assistant", "tool")
"""Roles of chat messages; which of them a template takes is its own business."""
SYSTEM_ROLES = ("system", "developer")
"""Roles of a message that says how all others are to be answered."""
PROBE = "qz{}zq"
"""Stands for a piece of the chat when it is looked whether a template writes it: letters and digits alone, which look
the same as text and inside JSON."""

Tool = dict[str, Any]
"""A function's description: a JSON schema, as transformers and OpenAI have it."""


@dataclass(frozen=True)
class Conversation:
    """A chat with the tools that it may call."""

    messages: list[Message]
    tools: tuple[Tool, ...] = ()

    def with_system_prompt(self, prompt: str | None) -> "Conversation":
        """With this prompt in a system turn, unless the chat has one of its own: that one stays alone."""
        if prompt is None or self.messages[0]["role"] in SYSTEM_ROLES:
            return self
        return Conversation([{"role": "system", "content": prompt}, *self.messages], self.tools)

    def with_more_context(self, text: str) -> "Conversation":
        """With this text in the system turn, behind what is there (after an empty line), or in a new one."""
        first = self.messages[0]
        if first["role"] not in SYSTEM_ROLES:
            return self.with_system_prompt(text)
        extended = {**first, "content": f"{first['content']}\n\n{text}"}
        return Conversation([extended, *self.messages[1:]], self.tools)


def conversation(messages: Any, tools: Any = None) -> Conversation:
    """A row's messages and tools, checked. Raises RowError."""
    return Conversation(checked_messages(messages), checked_tools(tools))


def checked_messages(messages: Any) -> list[Message]:
    """The messages of a chat, each with `role` and `content`; `tool_calls` with arguments as mappings.

    Raises
    ------
    RowError
        Something of it is no chat, or no assistant speaks.
    """
    if not isinstance(messages, list | tuple):
        raise RowError(f"messages is no list of chat messages but {type(messages).__name__}")
    if not messages:
        raise RowError("messages is empty")
    checked = [_checked_message(message, number) for number, message in enumerate(messages, start=1)]
    if not any(message["role"] == "assistant" for message in checked):
        raise RowError("the chat has no assistant turn, so there is nothing to learn")
    return checked


def _checked_message(message: Any, number: int) -> Message:
    if not isinstance(message, dict):
        raise RowError(f"message {number} is no object with role and content")
    role = message.get("role")
    if role not in ROLES:
        raise RowError(f"message {number} has the unknown role {role!r} (known: {', '.join(ROLES)})")
    # Parquet fills fields that a message lacks with None; templates would take them for there.
    checked = {name: value for name, value in message.items() if value is not None}
    calls = checked.pop("tool_calls", None)
    if calls:
        if role != "assistant":
            raise RowError(f"message {number} has tool_calls, but only an assistant calls tools (role {role!r})")
        checked["tool_calls"] = _checked_calls(calls, number)
    content = checked.get("content")
    silent = content is None or (isinstance(content, str) and not content.strip())
    if calls and silent:
        return {**checked, "content": ""}
    return {**checked, "content": text_of(message.get("content"), f"content of message {number}")}


def _checked_calls(calls: Any, number: int) -> list[dict[str, Any]]:
    if not isinstance(calls, list | tuple):
        raise RowError(f"tool_calls of message {number} is no list but {type(calls).__name__}")
    return [_checked_call(call, f"tool call {place} of message {number}") for place, call in enumerate(calls, start=1)]


def _checked_call(call: Any, where: str) -> dict[str, Any]:
    function = _named_function(call)
    if function is None:
        raise RowError(f"{where} has no function name (wanted: function: {{name, arguments}})")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        # OpenAI's form. Templates write JSON themselves, and would write the text as a JSON string.
        arguments = _parsed(arguments, f"the arguments of {where}") if arguments.strip() else {}
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict):
        raise RowError(f"the arguments of {where} are no JSON object but {type(arguments).__name__}")
    around = {key: value for key, value in call.items() if key not in ("function", "name", "arguments")}
    return {**around, "type": "function", "function": {**function, "arguments": arguments}}


def _named_function(value: Any) -> dict[str, Any] | None:
    """The function of a tool or of a call, in `function` or written flat; None where it has no name."""
    function = value.get("function", value) if isinstance(value, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return function if isinstance(name, str) and name.strip() else None


def checked_tools(value: Any) -> tuple[Tool, ...]:
    """The tools of a row: a list of descriptions, or such a list as JSON text. Raises RowError."""
    if isinstance(value, str):
        value = _parsed(value, "tools") if value.strip() else None
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise RowError(f"tools is no list of functions but {type(value).__name__}")
    for number, tool in enumerate(value, start=1):
        if _named_function(tool) is None:
            raise RowError(f"tool {number} has no function name (wanted: type and function: {{name, parameters}})")
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in value)


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RowError(f"{what} is text that is no JSON ({error})") from error


@dataclass(frozen=True)
class Probe:
    """A chat in which every piece that templates are known to leave out is replaced by a mark of its own."""

    chat: Conversation
    marks: dict[str, str]
    """What each mark stands for, in words."""

    def left_out(self, text: str) -> str | None:
        """The first piece that a rendering of the chat doesn't hold."""
        return next((what for mark, what in self.marks.items() if mark not in text), None)


def probe_of(chat: Conversation) -> Probe | None:
    """The probe of a chat that has to do with tools; None for all others.

    Marked are the names of tools, names and arguments of calls, the text beside calls, and what tools answer.
    """
    if not chat.tools and not any(m["role"] == "tool" or "tool_calls" in m for m in chat.messages):
        return None
    marks: dict[str, str] = {}

    def mark(what: str) -> str:
        sign = PROBE.format(len(marks))
        marks[sign] = what
        return sign

    tools = tuple(
        {**tool, "function": {**tool["function"], "name": mark(f"the tool {tool['function']['name']!r}")}}
        for tool in chat.tools
    )
    messages = [_marked(message, number, mark) for number, message in enumerate(chat.messages, start=1)]
    return Probe(Conversation(messages, tools), marks)


def _marked(message: Message, number: int, mark: Callable[[str], str]) -> Message:
    if message["role"] != "tool" and "tool_calls" not in message:
        return message
    marked = dict(message)
    if message["content"]:
        marked["content"] = mark(f"the content of message {number} ({message['role']})")
    if "tool_calls" in message:
        marked["tool_calls"] = [_marked_call(call, number, mark) for call in message["tool_calls"]]
    return marked


def _marked_call(call: dict[str, Any], number: int, mark: Callable[[str], str]) -> dict[str, Any]:
    function = call["function"]
    where = f"the call of {function['name']!r} in message {number}"
    name = mark(where)
    arguments = {mark(f"the arguments of {where}"): 0} if function["arguments"] else {}
    return {**call, "function": {**function, "name": name, "arguments": arguments}}


def text_of(value: Any, name: str) -> str:
    """The value, which must be text with something in it; `name` is what it is called. Raises RowError."""
    if not isinstance(value, str):
        raise RowError(f"{name} is no text but {type(value).__name__}")
    if not value.strip():
        raise RowError(f"{name} is empty")
    if not value.isprintable() and re.search("[\ud800-\udfff]", value):
        raise RowError(f"{name} holds half a surrogate pair, which is no character")
    return value


def texts_of(*values: Any) -> Iterator[str]:
    """Those of the values that are texts with something in them."""
    yield from (value for value in values if isinstance(value, str) and value.strip())
