"""Drives files through rows to sequences, and counts what happened to each row."""

import itertools
import logging
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass, field, fields
from typing import Literal

from distill_runtime.data.chat import TextEncoder
from distill_runtime.data.readings import fit
from distill_runtime.data.rows import BadRow, DataSource, Row, read_rows
from distill_runtime.data.sequence import Sequence
from distill_runtime.data.spans import Rendered, RowError
from distill_runtime.errors import UserError
from distill_runtime.prepared import SourceCounts
from distill_runtime.progress import ProgressReporter

BATCH_ROWS = 256
"""Rows that are tokenised at a time."""

log = logging.getLogger(__name__)


@dataclass
class Counts:
    """What became of the rows."""

    rows: int = 0
    """Rows read, bad ones included."""
    sequences: int = 0
    """Rows that became a sequence."""
    dropped: int = 0
    """Rows left out because they are longer than the limit."""
    truncated: int = 0
    """Sequences whose end was cut off."""
    bad: int = 0
    """Rows that can't be used."""
    tokens: int = 0
    """Tokens of the sequences."""
    targets: int = 0
    """Targets of the sequences."""

    def __add__(self, other: "Counts") -> "Counts":
        names = [field.name for field in fields(self)]
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def of_source(self) -> SourceCounts:
        """For the plan's manifest, as the counts of one source."""
        return SourceCounts(
            rows=self.rows,
            sequences=self.sequences,
            tokens=self.tokens,
            targets=self.targets,
            dropped_rows=self.dropped,
            truncated_rows=self.truncated,
            bad_rows=self.bad,
        )

    def report(self) -> dict[str, int | float | str]:
        """For the plan's manifest."""
        return {
            "rows": self.rows,
            "sequences": self.sequences,
            "droppedRows": self.dropped,
            "truncatedRows": self.truncated,
            "badRows": self.bad,
        }


@dataclass
class BadRows:
    """Bad rows so far: each one is logged, and there is a limit."""

    limit: int
    count: int = 0
    first: BadRow | None = field(default=None)

    def add(self, row: BadRow) -> None:
        """Counts and names a bad row."""
        self.count += 1
        self.first = self.first or row
        log.warning("bad row %s: %s", row.place, row.reason)

    def check(self) -> None:
        """Raises UserError once there are more than the limit."""
        if self.count > self.limit and self.first is not None:
            rows = "1 bad row" if self.count == 1 else f"{self.count} bad rows"
            raise UserError(
                f"{self.first.place}: {self.first.reason} ({rows} so far, data.maxBadRows allows {self.limit}): "
                "mend or remove it, or raise data.maxBadRows.",
                reason="BadRow",
            )


def tokenise(
    files: Many[DataSource],
    encoder: TextEncoder,
    *,
    name: str,
    max_length: int,
    too_long: Literal["drop", "truncate"],
    teacher_max_length: int | None = None,
    bad: BadRows,
    counts: Counts,
    progress: ProgressReporter | None = None,
) -> Iterator[tuple[int, Sequence]]:
    """The files' rows as sequences, each with its number among all rows (from 0), in the order of the data.

    `name` is what the files are in the spec (`data.train`). `bad` may have rows of other files already. `counts` is
    filled on the way and complete after the last sequence.

    Raises
    ------
    UserError
        More bad rows than allowed, or no row is left.
    """
    before = bad.count
    limit = _limit(encoder, max_length, teacher_max_length)
    columns = encoder.columns
    rows = read_rows(files, columns=set(columns.model_dump().values()))
    for batch in _batches(rows, BATCH_ROWS):
        first = counts.rows
        counts.rows += len(batch)
        rendered = _render(batch, encoder, bad)
        results = encoder.encode([text for _, text in rendered])
        for (place, _), result in zip(rendered, results, strict=True):
            row = batch[place]
            if isinstance(result, RowError):
                bad.add(BadRow(row.source, row.number, str(result)))
                continue
            sequence, cut = fit(result, max_length, too_long, teacher_max_length)
            counts.truncated += cut
            if sequence is None:
                counts.dropped += 1
            else:
                counts.sequences += 1
                counts.tokens += sequence.length
                counts.targets += len(sequence.targets)
                yield first + place, sequence
        counts.bad = bad.count - before
        bad.check()
        if progress is not None:
            progress.update(stage="tokenise", done=counts.rows, unit="rows", message=name)
    if counts.sequences == 0:
        raise UserError(_why_nothing_is_left(files, counts, bad, name, limit), reason="NoData")
    if counts.dropped or counts.truncated:
        log.warning(
            "%s: of %d rows, %d longer than %s were dropped and %d cut off",
            name,
            counts.rows,
            counts.dropped,
            limit,
            counts.truncated,
        )


def _render(batch: list[Row | BadRow], encoder: TextEncoder, bad: BadRows) -> list[tuple[int, Rendered]]:
    """The rows that can be rendered, each with its place in the batch."""
    rendered: list[tuple[int, Rendered]] = []
    for place, row in enumerate(batch):
        if isinstance(row, BadRow):
            bad.add(row)
            continue
        try:
            rendered.append((place, encoder.render_row(row.values)))
        except RowError as error:
            bad.add(BadRow(row.source, row.number, str(error)))
    return rendered


def _why_nothing_is_left(files: Many[DataSource], counts: Counts, bad: BadRows, name: str, limit: str) -> str:
    where = files[0].uri if len(files) == 1 else f"the {len(files)} files of {name}"
    if counts.rows == 0:
        return f"{name}: {where} {'has' if len(files) == 1 else 'have'} no rows."
    if counts.dropped == counts.rows:
        return (
            f"{name}: all {counts.rows} rows of {where} are longer than {limit}, or have no target within it: raise it."
        )
    first = f" (the first: {bad.first.place}: {bad.first.reason})" if bad.first else ""
    return (
        f"{name}: no row of {where} is left: {counts.bad} of {counts.rows} are bad{first}, {counts.dropped} longer "
        f"than {limit}."
    )


def _limit(encoder: TextEncoder, max_length: int, teacher_max_length: int | None) -> str:
    """The limits of length, in words."""
    limit = f"data.maxLength {max_length} tokens"
    if encoder.teacher_prompt is None and teacher_max_length is None:
        return limit
    longest = max_length if teacher_max_length is None else teacher_max_length
    return f"{limit} (or, as the teacher reads them, data.teacherMaxLength {longest})"


def _batches(rows: Iterable[Row | BadRow], size: int) -> Iterator[list[Row | BadRow]]:
    rows = iter(rows)
    while batch := list(itertools.islice(rows, size)):
        yield batch
