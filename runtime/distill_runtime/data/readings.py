"""What teacher and student read of one row: other ids where the teacher is told more, and the same targets."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from distill_runtime.data.sequence import Sequence
from distill_runtime.data.spans import RowError


def paired(
    student: Sequence | RowError, teacher: Sequence | RowError, token: Callable[[int], str]
) -> Sequence | RowError:
    """The student's sequence with the teacher's reading of it; the student's alone where both read the same.

    A token that begins the student's text, and so is no target, is none for the teacher either. `token` names an id in
    a message. A RowError where the targets of both are not the same tokens: a template or a tokenizer writes the
    answer otherwise behind what the teacher alone sees.
    """
    if isinstance(student, RowError):
        return student
    if isinstance(teacher, RowError):
        return RowError(f"with the text that only the teacher sees: {teacher}")
    if len(teacher.targets) == len(student.targets) + 1 and teacher.ids[teacher.targets[0]] == student.ids[0]:
        mask = teacher.target_mask.copy()
        mask[teacher.targets[0]] = False
        teacher = Sequence(ids=teacher.ids, target_mask=mask)
    ours, theirs = student.ids[student.targets], teacher.ids[teacher.targets]
    if not np.array_equal(ours, theirs):
        return RowError(_difference(ours.tolist(), theirs.tolist(), token))
    if teacher.digest == student.digest:
        return student
    return replace(student, teacher=teacher)


def _difference(ours: list[int], theirs: list[int], token: Callable[[int], str]) -> str:
    pairs = zip(ours, theirs, strict=False)
    place = next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(ours), len(theirs)))
    of_student = token(ours[place]) if place < len(ours) else "nothing"
    of_teacher = token(theirs[place]) if place < len(theirs) else "nothing"
    return (
        f"behind the text that only the teacher sees its answer has other tokens: target {place + 1} is {of_teacher} "
        f"for the teacher and {of_student} for the student, so that they can't be compared"
    )


def fit(
    sequence: Sequence,
    max_length: int,
    too_long: Literal["drop", "truncate"],
    teacher_max_length: int | None = None,
) -> tuple[Sequence | None, bool]:
    """The sequence within `max_length` tokens, its teacher's reading within `teacher_max_length` (None: the same
    length), and whether something was cut off. Both sides keep the same targets.

    None for a sequence that is dropped: because the policy is `drop`, or because no target is left of it.
    """
    longest = max_length if teacher_max_length is None else teacher_max_length
    teacher = sequence.teacher
    if sequence.length <= max_length and (teacher is None or teacher.length <= longest):
        return sequence, False
    if too_long == "drop":
        return None, False
    kept = int(sequence.target_mask[:max_length].sum())
    if teacher is not None:
        kept = min(kept, int(teacher.target_mask[:longest].sum()))
    if kept == 0:
        return None, False
    short = _cut(sequence, kept, max_length)
    return short if teacher is None else replace(short, teacher=_cut(teacher, kept, longest)), True


def _cut(reading: Sequence, targets: int, max_length: int) -> Sequence:
    """The first `max_length` tokens, and no more targets than `targets`."""
    end = min(reading.length, max_length)
    if targets < len(reading.targets):
        end = min(end, int(reading.targets[targets]))
    return Sequence(ids=reading.ids[:end], target_mask=reading.target_mask[:end])
