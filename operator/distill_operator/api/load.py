"""A manifest's text as a `DistillJob`, or all that is wrong with it at once."""

import json
from collections.abc import Mapping
from typing import Any, cast

from pydantic import ValidationError

from distill_operator.api.document import InvalidDocument, read_documents
from distill_operator.api.fields import without_nulls
from distill_operator.api.job import API_VERSION, KIND, DistillJob
from distill_operator.api.sentences import messages, show
from distill_operator.api.status import with_known_phase


class InvalidJob(Exception):
    """A manifest that can't be used. `errors` has one sentence for each mistake."""

    def __init__(self, source: str, errors: list[str]) -> None:
        super().__init__("\n".join(f"{source}: {error}" for error in errors))
        self.source = source
        self.errors = errors


def load_job(text: str, source: str) -> DistillJob:
    """Reads the one DistillJob in YAML (or JSON) `text`; objects of other kinds beside it are left aside.

    `source` names the text in errors: the file's name.

    Raises
    ------
    InvalidJob
        With every mistake that was found.
    """
    try:
        document = _the_job(read_documents(text))
    except InvalidDocument as error:
        raise InvalidJob(source, [str(error)]) from error
    return job_of(document, source)


def job_of(document: Any, source: str) -> DistillJob:
    """A DistillJob of plain data: of a manifest, or of an object as the API server has it.

    Raises
    ------
    InvalidJob
        With every mistake that was found.
    """
    if not isinstance(document, Mapping):
        raise InvalidJob(source, [f"must be a mapping with apiVersion, kind, metadata and spec, got {show(document)}"])
    given = without_nulls(DistillJob, cast("Mapping[str, Any]", document))
    if isinstance(given.get("status"), Mapping):
        given = {**given, "status": with_known_phase(given["status"])}
    try:
        # JSON mode is strict about types (no "8" for 8) but takes lists for tuples and 1 for 1.0.
        return DistillJob.model_validate_json(json.dumps(given), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidJob(source, messages(error, DistillJob, given)) from error


def _the_job(documents: list[Any]) -> Any:
    if not documents:
        raise InvalidDocument(f"there is nothing in it: write a {KIND} (apiVersion: {API_VERSION})")
    if len(documents) == 1:
        return documents[0]
    jobs: list[Any] = [document for document in documents if _kind(document) == KIND]
    if len(jobs) != 1:
        raise InvalidDocument(f"has {len(documents)} documents with {len(jobs)} of kind {KIND}: exactly one is wanted")
    return jobs[0]


def _kind(document: Any) -> Any:
    return cast("Mapping[str, Any]", document).get("kind") if isinstance(document, Mapping) else None
