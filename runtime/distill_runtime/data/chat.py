"""Rows to token ids and target masks: chats, prompts with completions, plain text.

- The whole text of a row is tokenised once; spans of characters become tokens by the tokenizer's own offsets. A token
  is a target if it begins inside a span. A token across the beginning of a span is an error of the row, not a guess.
- What the tokenizer puts before every text (a begin-of-text token) stands before every row exactly once, whether the
  tokenizer adds it, a chat template writes it, or both do.
- Plain text gets the end-of-text token behind it as a target.
- Where the teacher reads another text than the student, the targets of both are the same tokens, one to one.
- Templates see a fixed date: the same rows make the same plan on any day.
"""

import datetime
import json
import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jinja2 import TemplateError, TemplateSyntaxError
from tokenizers import Encoding, Tokenizer

from distill_runtime.contract.sections import Columns
from distill_runtime.data.messages import Conversation, checked_tools, conversation, probe_of, text_of, texts_of
from distill_runtime.data.readings import paired
from distill_runtime.data.sequence import Sequence
from distill_runtime.data.spans import Message, Rendered, RowError, assistant_spans
from distill_runtime.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE_DATE = datetime.datetime(2024, 7, 26)  # The date that Llama's templates fall back to.
"""What templates that ask for today's date are told."""
NOTHING = re.compile(r"(?!)")

log = logging.getLogger(__name__)


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
    targets
        Which turns of a chat are learned.
    system_prompt
        A system turn for chats that have none.
    teacher_prompt
        What the teacher alone is told, before the context of the row.

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
        targets: Literal["allAssistantTurns", "lastAssistantTurn"] = "allAssistantTurns",
        system_prompt: str | None = None,
        teacher_prompt: str | None = None,
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
        self._targets: Literal["allAssistantTurns", "lastAssistantTurn"] = targets
        self._system_prompt = system_prompt
        self.teacher_prompt = teacher_prompt
        """What the teacher alone is told about every row."""
        specials = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special_ids = frozenset(specials.values())
        by_length = sorted(specials, key=len, reverse=True)
        self._special = re.compile("|".join(re.escape(text) for text in by_length)) if specials else NOTHING
        self._backend = _plain_backend(tokenizer)
        self._before, self._behind = self._added_tokens()
        self._begin = "".join(self.tokenizer.convert_ids_to_tokens(self._before))
        self._warned = False
        if self.has_template:
            self._check_template()

    # From rows to text

    def render_row(self, values: dict[str, Any]) -> Rendered:
        """A row as text: `messages` if it has them, else `prompt` and `completion`, else `text`.

        Where the job has a prompt or the row a context that only the teacher sees, the teacher's text is with it.

        Raises
        ------
        RowError
            The row can't be used.
        UserError
            The row is a chat, and there is no chat template.
        """
        names = self.columns
        tools = values.get(names.tools)
        context = self._teacher_context(values)
        if values.get(names.messages) is not None:
            return self._render_chat(conversation(values[names.messages], tools), context)
        if values.get(names.prompt) is not None and values.get(names.completion) is not None:
            prompt = text_of(values[names.prompt], names.prompt)
            completion = text_of(values[names.completion], names.completion)
            if self._chat_prompts:
                return self._render_chat(conversation(_two_turns(prompt, completion), tools), context)
            return self._render_plain(prompt, completion, tools, context)
        if values.get(names.text) is not None:
            return self._render_plain("", text_of(values[names.text], names.text), tools, context)
        found = ", ".join(str(name) for name in values) or "none"
        raise RowError(
            f"the row has neither {names.messages!r}, nor {names.prompt!r} with {names.completion!r}, nor "
            f"{names.text!r} (columns: {found}; data.columns names others)"
        )

    def render_pair(self, prompt: str, completion: str) -> Rendered:
        """A prompt with its completion, whose text and end are the targets, as all models read it. Raises RowError."""
        if self._chat_prompts:
            return self._render_chat(conversation(_two_turns(prompt, completion)), "")
        return _plain(prompt, completion)

    def render_prompt(self, prompt: str) -> Rendered:
        """A prompt that waits for its answer, generation prompt included. It has no targets. Raises RowError."""
        if self._chat_prompts:
            chat = Conversation([{"role": "user", "content": prompt}]).with_system_prompt(self._system_prompt)
            return Rendered(text=self._render(chat, chat.messages, True), spans=(), chat=True)
        return Rendered(text=prompt, spans=(), chat=False)

    def _teacher_context(self, values: dict[str, Any]) -> str:
        """What the teacher alone is told about a row; empty: nothing."""
        name = self.columns.teacher_context
        context = values.get(name)
        if context is not None and not isinstance(context, str):
            raise RowError(f"{name} is no text but {type(context).__name__}")
        return "\n\n".join(texts_of(self.teacher_prompt, text_of(context, name) if context and context.strip() else ""))

    def _render_chat(self, chat: Conversation, context: str) -> Rendered:
        if not self.has_template:
            raise UserError(
                f"the data has chats, but the tokenizer of {self.tokenizer.name_or_path} has no chat template: "
                "give one in data.chatTemplate.",
                reason="NoChatTemplate",
            )
        self._check_nothing_is_left_out(chat)
        chat = chat.with_system_prompt(self._system_prompt)
        rendered = self._spans_of(chat)
        if not context:
            return rendered
        try:
            return replace(rendered, teacher=self._spans_of(chat.with_more_context(context)))
        except RowError as error:
            raise RowError(f"with the text that only the teacher sees: {error}") from error

    def _spans_of(self, chat: Conversation) -> Rendered:
        def render(messages: list[Message], add_generation_prompt: bool) -> str:
            return self._render(chat, messages, add_generation_prompt)

        return assistant_spans(chat.messages, render, self._special, self._targets)

    def _check_nothing_is_left_out(self, chat: Conversation) -> None:
        probe = probe_of(chat)
        if probe is None:
            return
        left_out = probe.left_out(self._render(probe.chat, probe.chat.messages, False))
        if left_out is not None:
            raise RowError(
                f"the chat template leaves out {left_out}, so that the models would not see it (give a template that "
                "writes it, data.chatTemplate, or remove it from the row)"
            )

    def _render_plain(self, prompt: str, completion: str, tools: Any, context: str) -> Rendered:
        if checked_tools(tools):
            raise RowError("the row has tools, but it is plain text, which has no place for them")
        if self._system_prompt is not None:
            raise RowError("the row is plain text, which has no place for data.systemPrompt")
        rendered = _plain(prompt, completion)
        if not context:
            return rendered
        text = rendered.text
        # A begin-of-text token that the text brings along stays the first one.
        begin = len(self._begin) if text.startswith(self._begin) else 0
        behind = f"{text[:begin]}{context}\n\n"
        start = max(len(prompt), begin)
        shifted = (start + len(behind) - begin, len(text) + len(behind) - begin)
        teacher = Rendered(text=behind + text[begin:], spans=(shifted,), chat=False)
        return Rendered(text=text, spans=((start, len(text)),), chat=False, teacher=teacher)

    # From text to tokens

    def encode(self, rows: list[Rendered]) -> list[Sequence | RowError]:
        """Tokenises a batch of rows; in the place of a row that can't be used is the reason."""
        teachers = [row.teacher for row in rows if row.teacher is not None]
        texts = [*rows, *teachers]
        batch = self._backend.encode_batch([row.text for row in texts], add_special_tokens=False)
        sequences = [self._sequence(row, encoding) for row, encoding in zip(texts, batch, strict=True)]
        of_teachers = iter(sequences[len(rows) :])
        return [
            sequence if row.teacher is None else paired(sequence, next(of_teachers), self._token)
            for row, sequence in zip(rows, sequences[: len(rows)], strict=True)
        ]

    def encode_prompt(self, rendered: Rendered) -> list[int]:
        """Token ids of a rendered prompt, without anything behind it."""
        ids = self._backend.encode(rendered.text, add_special_tokens=False).ids
        return ids if self._begins(ids) else [*self._before, *ids]

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

    def _added_tokens(self) -> tuple[list[int], list[int]]:
        """What the tokenizer itself puts before and behind every text, end-of-text token left out."""
        bare = self._backend.encode("a", add_special_tokens=False).ids
        added = self._backend.encode("a", add_special_tokens=True).ids
        starts = [at for at in range(len(added)) if added[at : at + len(bare)] == bare]
        if not bare or not starts:
            return [], []
        before, behind = added[: starts[-1]], added[starts[-1] + len(bare) :]
        return before, behind[:-1] if behind[-1:] == [self.tokenizer.eos_token_id] else behind

    def _begins(self, ids: list[int]) -> bool:
        """Do the ids of a text begin with all that the tokenizer would put before it?"""
        return ids[: len(self._before)] == self._before

    def _sequence(self, row: Rendered, encoding: Encoding) -> Sequence | RowError:
        ids, offsets = np.array(encoding.ids, dtype=np.int32), np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        mask = np.zeros(len(ids), dtype=np.bool_)
        for start, end in row.spans:
            across = (offsets[:, 0] < start) & (offsets[:, 1] > start)
            if across.any():
                begin, stop = (int(offset) for offset in offsets[int(np.flatnonzero(across)[0])])
                return RowError(
                    f"one token ({row.text[begin:stop]!r}) holds the end of what comes before an answer and the "
                    "beginning of the answer: let the one end, or the other begin, otherwise"
                )
            mask |= (offsets[:, 0] >= start) & (offsets[:, 0] < end)
        before = [] if self._begins(encoding.ids) else self._before
        if before and row.chat:
            self._warn_of_template()
        behind = [] if row.chat else [*self._behind, self.end_of_text()]
        ids = np.concatenate([np.array(before, np.int32), ids, np.array(behind, np.int32)])
        # What is added before the text is no target; behind it the end of text alone is one.
        ends = np.arange(len(behind)) == len(behind) - 1
        mask = np.concatenate([np.zeros(len(before), np.bool_), mask, ends])
        mask[:1] = False
        if not mask.any():
            return RowError("no token of the row is a target")
        return Sequence(ids=ids, target_mask=mask)

    def _warn_of_template(self) -> None:
        if self._warned:
            return
        self._warned = True
        log.warning(
            "the chat template writes no %s, which the tokenizer puts before every text: it is put before every chat. "
            "Servers that take the template alone leave it out: give them a template that begins with {{ bos_token }}",
            self._begin,
        )

    def _token(self, number: int) -> str:
        return repr(self.tokenizer.convert_ids_to_tokens(number))

    def _render(self, chat: Conversation, messages: list[Message], add_generation_prompt: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                tools=list(chat.tools) or None,
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


def _two_turns(prompt: str, completion: str) -> list[Message]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]


def _plain(prompt: str, completion: str) -> Rendered:
    text = prompt + completion
    return Rendered(text=text, spans=((len(prompt), len(text)),), chat=False)


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
