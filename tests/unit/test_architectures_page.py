"""The page of proven models says what the lists in the code say."""

from pathlib import Path

from distill_runtime.architectures_page import page
from distill_runtime.signals.head_source import UNDERSTOOD_HEADS
from distill_runtime.student.architectures import REFUSED, STUDENT_PROVEN, UNPACKED

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "models.md"


def test_the_page_in_the_docs_is_the_one_that_the_lists_give() -> None:
    assert PAGE.read_text() == page(), "run `make generate`"


def test_every_refused_student_is_a_teacher() -> None:
    assert REFUSED.keys() < UNDERSTOOD_HEADS.keys()
    assert UNPACKED < STUDENT_PROVEN
