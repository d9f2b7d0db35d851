"""The page of all fields says what the types say."""

from pathlib import Path

from distill_operator.api.job import JobSpec
from distill_operator.api.reference import reference

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "distilljob.md"


def test_the_page_in_the_docs_is_the_one_that_the_types_give() -> None:
    assert PAGE.read_text() == reference(), "run `make generate`"


def test_every_field_has_a_description() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    assert [row for row in rows if row.endswith("|  |")] == []
    for name, field in JobSpec.model_fields.items():
        assert f"| `{field.alias or name}` |" in reference()
