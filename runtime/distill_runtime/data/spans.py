"""Where the assistant speaks in a rendered chat, as spans of characters, found by rendering prefixes."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Message = dict[str, Any]
Render = Callable[[list[Message], bool], str]
"""(messages, add generation prompt) -> text."""

EMPTY_THINKING = re.compile(r"<think>\s*</think>\n*")
"""What templates of reasoning models put before an answer that has no reasoning."""
OPEN_THINKING = re.compile(r"<think>\s*(</think>\s*)?$")
"""How a generation prompt may end; turns that have been answered are then rendered without it."""


class RowError(Exception):
    """A row can't be used. Its text is a clause that says why."""


@dataclass(frozen=True)
class Rendered:
    """A row as text."""

    text: str
    spans: tuple[tuple[int, int], ...]
    """[begin, end) of each stretch of targets, in characters, rising."""
    chat: bool
    """Rendered by a chat template. Else the end-of-text token comes behind it."""
    teacher: "Rendered | None" = None
    """The text that the teacher reads, where that is another one; as many spans, which hold the same."""


def assistant_spans(
    messages: list[Message],
    render: Render,
    special: re.Pattern[str],
    which: Literal["allAssistantTurns", "lastAssistantTurn"] = "allAssistantTurns",
) -> Rendered:
    """Renders a chat and finds what the assistant says in it, in all of its turns or in the last one.

    A span begins after the generation prompt, so nothing of that is a target, nor is an empty `<think></think>` that
    the template puts before an answer. It ends with the last special token of the turn (matched by `special`), which
    leaves out a line break behind the end-of-turn token; with the turn itself where that has no special token.

    Each span is checked: the chat up to the turn, and up to and including it, must be true prefixes of the whole. Only
    turns with others behind them may differ from what they were as the last one (templates that drop an empty
    `<think></think>` from history); then content and end-of-turn token must follow the generation prompt literally.

    Raises
    ------
    RowError
        The template renders an earlier turn otherwise when others follow, so that its tokens can't be told for sure.
    """
    whole = render(messages, False)
    spans: list[tuple[int, int]] = []
    turns = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    for number in turns if which == "allAssistantTurns" else turns[-1:]:
        message = messages[number]
        if number == 0:
            raise RowError("the chat begins with the assistant: there is nothing that it answers")
        last = number == len(messages) - 1
        start = _after_generation_prompt(whole, render(messages[:number], True), number, last=last)
        limit = len(whole)
        if not last:
            limit = _end_of_turn(
                whole, start, render(messages[: number + 1], False), message["content"], special, number
            )
        thinking = EMPTY_THINKING.match(whole, start, limit)
        if thinking and not message["content"].lstrip().startswith("<think>"):
            start = thinking.end()
        ends = [match.end() for match in special.finditer(whole, start, limit)]
        spans.append((start, ends[-1] if ends else limit))
    return Rendered(text=whole, spans=tuple(spans), chat=True)


def _after_generation_prompt(whole: str, prompt: str, number: int, *, last: bool) -> int:
    if whole.startswith(prompt):
        return len(prompt)
    answered = OPEN_THINKING.sub("", prompt)
    if not last and answered != prompt and whole.startswith(answered):
        return len(answered)
    raise RowError(
        f"the chat template renders what comes before turn {number + 1} otherwise once the turn is there: "
        "its targets can't be told for sure (give a template that only appends, data.chatTemplate)"
    )


def _end_of_turn(whole: str, start: int, as_last: str, content: str, special: re.Pattern[str], number: int) -> int:
    """Where the turn ends in the whole, given the chat with this turn as the last."""
    if whole.startswith(as_last):
        return len(as_last)
    stripped = content.strip()
    place = as_last.rfind(stripped)
    closing = special.search(as_last, place + len(stripped)) if place >= 0 else None
    if closing is not None:
        begin = start + len(whole[start:]) - len(whole[start:].lstrip())
        literal = as_last[place : closing.end()]
        if whole.startswith(literal, begin):
            return begin + len(literal)
    raise RowError(
        f"the chat template renders turn {number + 1} otherwise when others follow: "
        "its targets can't be told for sure (give a template that only appends, data.chatTemplate)"
    )
