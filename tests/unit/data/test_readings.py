"""What the teacher alone is told: other ids, the same targets, one to one."""

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_runtime.data.chat import TextEncoder
from distill_runtime.data.plan import Plan, write_plan
from distill_runtime.data.readings import fit, paired
from distill_runtime.data.sequence import Sequence
from distill_runtime.data.spans import RowError
from tests.fixtures.memory_store import MemoryStore
from tests.fixtures.models import CHATML
from tests.fixtures.templates import HEADERS, INSTRUCTIONS, TURNS, tokenizer_with
from tests.unit.data.encoding import chat, encode, refusal, target_texts

CHAT = chat("two?", "two.", "four?", "the fox")
CONTEXT = "be lazy."


def told(template: str | None = CHATML, **options: Any) -> TextEncoder:
    return TextEncoder(tokenizer_with(template), **options)


def text_of(encoder: TextEncoder, sequence: Sequence) -> str:
    return str(encoder.tokenizer.decode(sequence.ids))


@pytest.mark.parametrize("context", [None, "", " \n"])
def test_without_a_context_the_sequence_is_the_same_bit_for_bit(context: str | None) -> None:
    sequence = encode(told(), {"messages": CHAT, "teacher_context": context})
    assert sequence.teacher is None
    assert sequence.digest == encode(told(), {"messages": CHAT}).digest
    # As it always was, so that signals of earlier versions are found.
    ids = len(sequence.ids).to_bytes(8, "little") + sequence.ids.astype("<i4").tobytes()
    assert sequence.digest == hashlib.sha256(ids + np.packbits(sequence.target_mask).tobytes()).hexdigest()


def test_a_plan_without_contexts_is_stored_as_it_always_was() -> None:
    from safetensors.numpy import load

    encoder = told()
    rows = [{"messages": CHAT}, {"prompt": "two?", "completion": "two.", "teacher_context": ""}]
    sequences = [encode(encoder, row) for row in rows]
    store = MemoryStore()
    plan = Plan(store, write_plan(store, "plans/x", enumerate(sequences), shard_sequences=2))
    (shard,) = plan.manifest.shards
    assert set(load(store.get(shard.key))) == {"ids", "target_mask", "offsets", "row"}
    digests = b"".join(bytes.fromhex(sequence.digest) for sequence in sequences)
    assert shard.digest == plan.manifest.data_digest == hashlib.sha256(digests).hexdigest()
    assert plan.longest_for_teacher == max(sequence.length for sequence in sequences)


def test_the_targets_of_a_context_counted_by_hand() -> None:
    sequence = encode(told(), {"messages": CHAT, "teacher_context": CONTEXT})
    # The student: <|im_start|> user \n t w o ? <|im_end|> \n | <|im_start|> as sis tant \n | t w o . <|im_end|> | \n …
    assert sequence.targets.tolist() == [14, 15, 16, 17, 18, 34, 35, 36]
    # The teacher, before it: <|im_start|> sy stem \n b e ␣lazy . <|im_end|> \n, which are 10.
    teacher = sequence.for_teacher
    assert teacher.ids.tolist() == [*(1, 326, 378, 202), *(69, 72, 393, 17, 2, 202), *sequence.ids.tolist()]
    assert teacher.targets.tolist() == [24, 25, 26, 27, 28, 44, 45, 46]
    assert teacher.signal_positions.tolist() == [23, 24, 25, 26, 27, 43, 44, 45]
    assert sequence.signal_positions.tolist() == [13, 14, 15, 16, 17, 33, 34, 35]


def test_the_digest_covers_both_readings_and_the_signals_name_the_teachers_alone() -> None:
    row = {"messages": CHAT, "teacher_context": CONTEXT}
    with_context, without = encode(told(), row), encode(told(), {"messages": CHAT})
    assert with_context.digest != without.digest
    other = encode(told(), {"messages": CHAT, "teacher_context": "be quick."})
    assert len({with_context.digest, other.digest, without.digest}) == 3
    # Who reads the same text as a student makes the same signal.
    everyone = encode(told(), {"messages": [{"role": "system", "content": CONTEXT}, *CHAT]})
    assert with_context.for_teacher.digest == everyone.digest
    assert with_context.digest != everyone.digest


@pytest.mark.parametrize(
    ("options", "row", "student", "teacher"),
    [
        ({"system_prompt": "be lazy."}, {}, "be lazy.", "be lazy."),
        ({"system_prompt": "be lazy."}, {"system": "the fox"}, "the fox", "the fox"),
        ({"teacher_prompt": "be lazy."}, {}, None, "be lazy."),
        ({"teacher_prompt": "be lazy."}, {"system": "the fox"}, "the fox", "the fox\n\nbe lazy."),
        ({"teacher_prompt": "be lazy."}, {"context": "in paris"}, None, "be lazy.\n\nin paris"),
        (
            {"teacher_prompt": "be lazy.", "system_prompt": "the dog"},
            {"context": "in paris"},
            "the dog",
            "the dog\n\nbe lazy.\n\nin paris",
        ),
    ],
)
def test_which_system_turn_each_side_reads(
    options: dict[str, str], row: dict[str, str], student: str | None, teacher: str | None
) -> None:
    encoder = told(**options)
    messages = chat("two?", "two.", system=row.get("system"))
    sequence = encode(encoder, {"messages": messages, "teacher_context": row.get("context")})
    rest = "<|im_start|>user\ntwo?<|im_end|>\n<|im_start|>assistant\ntwo.<|im_end|>\n"
    for reading, system in ((sequence, student), (sequence.for_teacher, teacher)):
        turn = f"<|im_start|>system\n{system}<|im_end|>\n" if system is not None else ""
        assert text_of(encoder, reading) == turn + rest


def test_tasks_are_asked_with_the_system_prompt_and_without_the_teachers() -> None:
    encoder = told(system_prompt="be lazy.", teacher_prompt="be quick.")
    assert encoder.render_prompt("two?").text.startswith("<|im_start|>system\nbe lazy.<|im_end|>\n<|im_start|>user")
    pair = encoder.render_pair("two?", "two.")
    assert pair.teacher is None
    assert pair.text.startswith("<|im_start|>system\nbe lazy.<|im_end|>\n<|im_start|>user")


CONTEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda text: text.strip() != "" and "<" not in text
)


@given(context=CONTEXTS, template=st.sampled_from([CHATML, HEADERS, INSTRUCTIONS]), last=st.booleans())
@settings(max_examples=60, deadline=None)
def test_targets_of_any_context_are_the_same_tokens_one_to_one(context: str, template: str, last: bool) -> None:
    encoder = told(template, targets="lastAssistantTurn" if last else "allAssistantTurns")
    sequence = encode(encoder, {"messages": CHAT, "teacher_context": context})
    teacher = sequence.for_teacher
    assert sequence.teacher is not None
    assert teacher.length > sequence.length
    assert teacher.ids[teacher.targets].tolist() == sequence.ids[sequence.targets].tolist()
    assert target_texts(encoder, teacher) == target_texts(encoder, sequence)


@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize(
    ("row", "targets"),
    [
        ({"prompt": "the answer is", "completion": " four."}, [" four.<|im_end|>"]),
        ({"text": "the quick brown fox"}, [" quick brown fox<|im_end|>"]),
        ({"text": "<|endoftext|>the quick brown fox"}, ["the quick brown fox<|im_end|>"]),
    ],
)
def test_a_context_before_plain_text(adds: bool, row: dict[str, str], targets: list[str]) -> None:
    encoder = TextEncoder(tokenizer_with(None, adds_begin_of_text=adds))
    sequence = encode(encoder, {**row, "teacher_context": CONTEXT})
    teacher = sequence.for_teacher
    if adds and row.get("text") == "the quick brown fox":
        targets = ["the quick brown fox<|im_end|>"]
    assert target_texts(encoder, sequence) == target_texts(encoder, teacher) == targets
    assert "be lazy.\n\n" in text_of(encoder, teacher)
    assert "be lazy." not in text_of(encoder, sequence)
    if adds:
        assert sequence.ids[0] == teacher.ids[0] == 0
        assert (teacher.ids == 0).sum() == 1


def test_a_template_that_writes_other_answers_behind_a_context_is_refused() -> None:
    shouting = CHATML.replace(
        "message['content'] +",
        "(message['content'] if messages[0]['role'] != 'system' else message['content'] | upper) +",
    )
    reason = refusal(told(shouting), {"messages": CHAT, "teacher_context": CONTEXT})
    assert reason == (
        "behind the text that only the teacher sees its answer has other tokens: target 1 is 'T' for the teacher and "
        "'t' for the student, so that they can't be compared"
    )


def test_a_template_without_a_system_turn_has_no_place_for_a_context() -> None:
    reason = refusal(told(TURNS), {"messages": CHAT, "teacher_context": CONTEXT})
    assert reason.startswith("with the text that only the teacher sees: the chat template refuses the chat (no system")


@pytest.mark.parametrize(
    ("row", "options", "reason"),
    [
        ({"messages": CHAT, "teacher_context": 5}, {}, "teacher_context is no text but int"),
        ({"text": "the fox"}, {"system_prompt": "be lazy."}, "no place for data.systemPrompt"),
    ],
)
def test_a_prompt_that_cannot_be_used_says_why(row: dict[str, Any], options: dict[str, str], reason: str) -> None:
    assert reason in refusal(told(**options), row)


def test_readings_with_other_numbers_of_targets_are_refused() -> None:
    ids = np.array([5, 6, 7], np.int32)
    student = Sequence(ids=ids, target_mask=np.array([False, True, True]))
    teacher = Sequence(ids=ids, target_mask=np.array([False, True, False]))
    for one, other, words in ((student, teacher, "target 2 is nothing for the teacher and <7>"),):
        result = paired(one, other, lambda number: f"<{number}>")
        assert isinstance(result, RowError)
        assert words in str(result)


def two_readings() -> Sequence:
    """Student: 6 tokens, targets 2, 4, 5. Teacher: 9 tokens, targets 5, 7, 8."""
    teacher = Sequence(
        ids=np.array([9, 9, 9, 1, 2, 3, 4, 5, 6], np.int32),
        target_mask=np.array([0, 0, 0, 0, 0, 1, 0, 1, 1], np.bool_),
    )
    return Sequence(
        ids=np.array([1, 2, 3, 4, 5, 6], np.int32),
        target_mask=np.array([0, 0, 1, 0, 1, 1], np.bool_),
        teacher=teacher,
    )


@pytest.mark.parametrize(
    ("student", "teacher", "kept"),
    [
        (6, 9, (6, 9, 3)),
        (6, None, (4, 6, 1)),
        (9, None, (6, 9, 3)),
        (5, 9, (5, 8, 2)),
        (6, 8, (5, 8, 2)),
        (4, 9, (4, 7, 1)),
        (6, 7, (4, 7, 1)),
        (2, 9, None),
        (6, 5, None),
    ],
)
def test_cutting_keeps_the_same_targets_on_both_sides(
    student: int, teacher: int | None, kept: tuple[int, int, int] | None
) -> None:
    left, cut = fit(two_readings(), student, "truncate", teacher)
    if kept is None:
        assert (left, cut) == (None, False)
        return
    assert left is not None
    assert left.teacher is not None
    assert cut is (kept != (6, 9, 3))
    assert (left.length, left.teacher.length, len(left.targets)) == kept
    assert left.ids[left.targets].tolist() == left.teacher.ids[left.teacher.targets].tolist()


def test_a_row_that_is_too_long_for_the_teacher_alone_is_dropped() -> None:
    assert fit(two_readings(), 6, "drop", 9)[0] is not None
    assert fit(two_readings(), 6, "drop", 8) == (None, False)
    assert fit(two_readings(), 6, "drop") == (None, False)


@given(contexts=st.lists(st.sampled_from(["", "be lazy.", "the dog"]), min_size=1, max_size=9), size=st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_a_plan_of_mixed_rows_is_read_as_it_was_written(contexts: list[str], size: int) -> None:
    encoder = told()
    written = [
        encode(encoder, {"prompt": f"is it {number}?", "completion": "two.", "teacher_context": context})
        for number, context in enumerate(contexts)
    ]
    store = MemoryStore()
    plan = Plan(store, write_plan(store, "plans/x", enumerate(written), shard_sequences=size))
    found = [plan.sequence(number) for number in range(len(plan))]
    assert [one.digest for one in found] == [one.digest for one in written]
    assert [one.for_teacher.digest for one in found] == [one.for_teacher.digest for one in written]
    assert plan.longest_for_teacher == max(one.for_teacher.length for one in written)
    shards = [written[at : at + size] for at in range(0, len(written), size)]
    assert [shard.digest for shard in plan.manifest.shards] == [
        hashlib.sha256(b"".join(bytes.fromhex(one.for_teacher.digest) for one in shard)).hexdigest() for shard in shards
    ]
