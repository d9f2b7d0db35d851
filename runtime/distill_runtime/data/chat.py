"""Rows to token ids and target masks: chats, prompts with completions, plain text.

- The whole text of a row is tokenised once; spans of characters become tokens by the tokenizer's own offsets. A token
  is a target if it begins inside a span. A token across the beginning of a span is an error of the row, not a guess.
- A chat gets no special tokens beside those of its template, so that none is doubled.
- Plain text gets the tokenizer's own before it (a begin-of-text token), and the end-of-text token behind it as a
  target.
- Templates see a fixed date: the same rows make the same plan on any day.
"""

import datetime
import json
import re
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jinja2 import TemplateError, TemplateSyntaxError
from tokenizers import Encoding, Tokenizer

from distill_runtime.contract.sections import Columns
from distill_runtime.data.sequence import Sequence
from distill_runtime.data.spans import Message, Rendered, RowError, assistant_spans
from distill_runtime.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("system", "developer", "user", "assistant", "tool")
"""Roles of chat messages; which of them a template takes is its own business."""
TEMPLATE_DATE = datetime.datetime(2024, 7, 26)  # The date that Llama's templates fall back to.
"""What templates that ask for today's date are told."""
NOTHING = re.compile(r"(?!)")


class TextEncoder:
    """Turns rows into sequences with one tokenizer and one way to render.

    Parameters
    ----------
    tokenizer
        A fast tokenizer of transformers.
    columns
        Names of the columns to read.
    chat_template
        Replaces the tokenizer's own.
    prompt_format
        How `prompt` and `completion` become one text; `auto` is a chat where there is a template.

    Raises
    ------
    UserError
        The tokenizer gives no offsets, the template is no Jinja, or `prompt_format` is `chat` without a template.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        columns: Columns | None = None,
        chat_template: str | None = None,
        prompt_format: Literal["auto", "chat", "plain"] = "auto",
    ) -> None:
        if not tokenizer.is_fast:
            raise UserError(
                f"the tokenizer {type(tokenizer).__name__} of {tokenizer.name_or_path} gives no offsets, so targets "
                "can't be found: the model needs a tokenizer.json.",
                reason="TokenizerUnsupported",
            )
        self.tokenizer = tokenizer
        self.columns = columns or Columns()
        self._template = chat_template
        self.has_template = bool(chat_template or tokenizer.chat_template)
        """Is there a chat template?"""
        if prompt_format == "chat" and not self.has_template:
            raise UserError(
                "data.promptFormat is chat, but the tokenizer has no chat template: give one in data.chatTemplate.",
                reason="NoChatTemplate",
            )
        self._chat_prompts = self.has_template and prompt_format != "plain"
        specials = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special_ids = frozenset(specials.values())
        by_length = sorted(specials, key=len, reverse=True)
        self._special = re.compile("|".join(re.escape(text) for text in by_length)) if specials else NOTHING
        self._backend = _plain_backend(tokenizer)
        if self.has_template:
            self._check_template()

    # From rows to text

    def render_row(self, values: dict[str, Any]) -> Rendered:
        """A row as text: `messages` if it has them, else `prompt` and `completion`, else `text`.

        Raises
        ------
        RowError
            The row can't be used.
        UserError
            The row is a chat, and there is no chat template.
        """
        names = self.columns
        if values.get(names.messages) is not None:
            return self.render_messages(values[names.messages])
        if values.get(names.prompt) is not None and values.get(names.completion) is not None:
            prompt = _text_of(values[names.prompt], names.prompt)
            return self.render_pair(prompt, _text_of(values[names.completion], names.completion))
        if values.get(names.text) is not None:
            text = _text_of(values[names.text], names.text)
            return Rendered(text=text, spans=((0, len(text)),), chat=False)
        found = ", ".join(str(name) for name in values) or "none"
        raise RowError(
            f"the row has neither {names.messages!r}, nor {names.prompt!r} with {names.completion!r}, nor "
            f"{names.text!r} (columns: {found}; data.columns names others)"
        )

    def render_messages(self, messages: Any) -> Rendered:
        """A chat as text. Raises RowError, and UserError where there is no chat template."""
        if not self.has_template:
            raise UserError(
                f"the data has chats, but the tokenizer of {self.tokenizer.name_or_path} has no chat template: "
                "give one in data.chatTemplate.",
                reason="NoChatTemplate",
            )
        return assistant_spans(_checked_messages(messages), self._render, self._special)

    def render_pair(self, prompt: str, completion: str) -> Rendered:
        """A prompt with its completion, whose text and end are the targets. Raises RowError."""
        if self._chat_prompts:
            return self.render_messages(
                [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
            )
        text = prompt + completion
        return Rendered(text=text, spans=((len(prompt), len(text)),), chat=False)

    def render_prompt(self, prompt: str) -> Rendered:
        """A prompt that waits for its answer, generation prompt included. It has no targets. Raises RowError."""
        if self._chat_prompts:
            return Rendered(text=self._render([{"role": "user", "content": prompt}], True), spans=(), chat=True)
        return Rendered(text=prompt, spans=(), chat=False)

    # From text to tokens

    def encode(self, rows: list[Rendered]) -> list[Sequence | RowError]:
        """Tokenises a batch of rows; in the place of a row that can't be used is the reason."""
        encoded: list[Encoding | None] = [None] * len(rows)
        for chat in (True, False):
            places = [place for place, row in enumerate(rows) if row.chat is chat]
            batch = self._backend.encode_batch([rows[place].text for place in places], add_special_tokens=not chat)
            for place, encoding in zip(places, batch, strict=True):
                encoded[place] = encoding
        return [self._sequence(row, encoding) for row, encoding in zip(rows, encoded, strict=True) if encoding]

    def encode_prompt(self, rendered: Rendered) -> list[int]:
        """Token ids of a rendered prompt, without anything behind it."""
        ids = self._backend.encode(rendered.text, add_special_tokens=not rendered.chat).ids
        return ids[:-1] if not rendered.chat and ids[-1:] == [self.tokenizer.eos_token_id] else ids

    def stop_token_ids(self) -> list[int]:
        """Ids that end an answer: the tokenizer's end-of-text token and the template's end-of-turn token."""
        ids = {self.end_of_text()}
        if self._chat_prompts:
            example = self.encode([self.render_pair("Hello", "Hello")])[0]
            if isinstance(example, Sequence) and int(example.ids[example.targets[-1]]) in self._special_ids:
                ids.add(int(example.ids[example.targets[-1]]))
        return sorted(ids)

    def end_of_text(self) -> int:
        """The tokenizer's end-of-text token. Raises UserError where it has none."""
        end = self.tokenizer.eos_token_id
        if not isinstance(end, int):
            raise UserError(
                f"the tokenizer of {self.tokenizer.name_or_path} has no end-of-text token: set eos_token in its "
                "tokenizer_config.json.",
                reason="TokenizerUnsupported",
            )
        return end

    def _sequence(self, row: Rendered, encoding: Encoding) -> Sequence | RowError:
        ids = np.array(encoding.ids, dtype=np.int32)
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        # Special tokens that the tokenizer adds around the text have no characters; those before it are no targets.
        inside_text = np.array(encoding.special_tokens_mask, dtype=np.bool_) == 0
        if not row.chat and len(ids) and ids[-1] == self.end_of_text() and not inside_text[-1]:
            ids, offsets, inside_text = ids[:-1], offsets[:-1], inside_text[:-1]
        mask = np.zeros(len(ids), dtype=np.bool_)
        for start, end in row.spans:
            across = inside_text & (offsets[:, 0] < start) & (offsets[:, 1] > start)
            if across.any():
                place = int(np.flatnonzero(across)[0])
                begin, stop = (int(offset) for offset in offsets[place])
                return RowError(
                    f"one token ({row.text[begin:stop]!r}) holds the end of what comes before an answer and the "
                    "beginning of the answer: let the one end, or the other begin, otherwise"
                )
            mask |= inside_text & (offsets[:, 0] >= start) & (offsets[:, 0] < end)
        if not row.chat:
            ids = np.append(ids, np.int32(self.end_of_text()))
            mask = np.append(mask, True)
        mask[:1] = False
        if not mask.any():
            return RowError("no token of the row is a target")
        return Sequence(ids=ids, target_mask=mask)

    def _render(self, messages: list[Message], add_generation_prompt: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                chat_template=self._template,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                strftime_now=TEMPLATE_DATE.strftime,
            )
        except (TemplateError, TypeError) as error:
            raise RowError(f"the chat template refuses the chat ({error})") from error
        assert isinstance(text, str)
        return text

    def _check_template(self) -> None:
        try:
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": "Hello"}], chat_template=self._template, tokenize=False
            )
        except TemplateSyntaxError as error:
            where = "data.chatTemplate" if self._template else f"the chat template of {self.tokenizer.name_or_path}"
            raise UserError(f"{where}: line {error.lineno}: {error.message}.", reason="BadChatTemplate") from error
        except TemplateError:
            pass  # It refuses this one chat; each row is tried for itself.


def fit(sequence: Sequence, max_length: int, too_long: Literal["drop", "truncate"]) -> tuple[Sequence | None, bool]:
    """The sequence within `max_length` tokens, and whether something was cut off.

    None for a sequence that is dropped: because the policy is `drop`, or because no target is left of it.
    """
    if sequence.length <= max_length:
        return sequence, False
    if too_long == "drop" or not sequence.target_mask[:max_length].any():
        return None, False
    return Sequence(ids=sequence.ids[:max_length], target_mask=sequence.target_mask[:max_length]), True


def _checked_messages(messages: Any) -> list[Message]:
    if not isinstance(messages, list | tuple):
        raise RowError(f"messages is no list of chat messages but {type(messages).__name__}")
    if not messages:
        raise RowError("messages is empty")
    checked: list[Message] = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            raise RowError(f"message {number} is no object with role and content")
        role = message.get("role")
        if role not in ROLES:
            raise RowError(f"message {number} has the unknown role {role!r} (known: {', '.join(ROLES)})")
        content = _text_of(message.get("content"), f"content of message {number}")
        # Parquet fills fields that a message lacks with None; templates would take them for there.
        checked.append({**{k: v for k, v in message.items() if v is not None}, "content": content})
    if not any(message["role"] == "assistant" for message in checked):
        raise RowError("the chat has no assistant turn, so there is nothing to learn")
    return checked


def _text_of(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise RowError(f"{name} is no text but {type(value).__name__}")
    if not value.strip():
        raise RowError(f"{name} is empty")
    if not value.isprintable() and re.search("[\ud800-\udfff]", value):
        raise RowError(f"{name} holds half a surrogate pair, which is no character")
    return value


def _plain_backend(tokenizer: "PreTrainedTokenizerBase") -> Tokenizer:
    """The tokenizer without truncation and padding, and with offsets that cover every character of a token.

    By default byte-level tokenizers leave the space at a token's beginning out of its offsets; then a token across the
    beginning of a span would look as if it began there.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    assert isinstance(backend, Tokenizer), "every fast tokenizer has one"
    description = json.loads(backend.to_str())
    description["truncation"] = description["padding"] = None
    _keep_spaces(description.get("post_processor"))
    return Tokenizer.from_str(json.dumps(description))


def _keep_spaces(processor: Any) -> None:
    if isinstance(processor, dict):
        if "trim_offsets" in processor:
            processor["trim_offsets"] = False
        for inner in processor.get("processors", []):
            _keep_spaces(inner)
