"""What a job starts from: models and data files, each resolved to contents."""

from dataclasses import dataclass
from pathlib import Path

from distill_runtime.contract.run import Work
from distill_runtime.data.files import DataFile, find_files
from distill_runtime.errors import UserError
from distill_runtime.models import ResolvedModel, resolve_model
from distill_runtime.store.base import ObjectStore


@dataclass(frozen=True)
class DataSet:
    """Files that are read together, with their field in the spec."""

    field: str
    files: list[DataFile]


@dataclass(frozen=True)
class Inputs:
    """Models on this machine's disk, and data files with their digests."""

    teacher: ResolvedModel
    student: ResolvedModel | None
    """The pretrained student; None for one that is made."""
    student_config: ResolvedModel | None
    """The configuration of a student with random weights."""
    train: list[DataSet]
    """The training data: one part, or one for each of `data.sources`."""
    evaluation: list[DataFile]
    tasks: dict[str, list[DataFile]]
    """Files of each task, by its name."""


def resolve_inputs(work: Work, *, store: ObjectStore, cache: Path) -> Inputs:
    """Finds all models and files, and downloads the models into `cache` where they are elsewhere.

    Raises
    ------
    UserError
        One of them is missing, can't be read or has no digest.
    """
    student = initial = None
    if work.student.model is not None:
        student = resolve_model(work.student.model, work.storage, cache=cache, store=store)
    elif work.student.initialise is not None and work.student.initialise.from_config is not None:
        uri = work.student.initialise.from_config.config.removesuffix("/config.json")
        initial = resolve_model(
            uri, work.storage, cache=cache, store=store, require_tokenizer=False, require_weights=False
        )
    return Inputs(
        # Data first: a name that is misspelt shows before a large model is downloaded.
        train=_training_data(work),
        evaluation=find_files(_uris(work.data.evaluation), work.storage) if work.data.evaluation else [],
        tasks={task.name: find_files([task.data], work.storage) for task in work.evaluation.tasks},
        teacher=resolve_model(work.teacher.model, work.storage, cache=cache, store=store),
        student=student,
        student_config=initial,
    )


def _training_data(work: Work) -> list[DataSet]:
    data = work.data
    if data.sources is None:
        assert data.train is not None, "one of the two is given"
        return [DataSet("data.train", find_files(_uris(data.train), work.storage))]
    parts: list[DataSet] = []
    seen: dict[str, str] = {}
    for number, source in enumerate(data.sources):
        part = DataSet(f"data.sources[{number}]", find_files([source.uri], work.storage))
        for file in part.files:
            if file.uri in seen:
                raise UserError(
                    f"{part.field}: {file.uri} belongs to {seen[file.uri]} too: let each file belong to one source.",
                    reason="BadData",
                )
            seen[file.uri] = part.field
        parts.append(part)
    return parts


def _uris(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
