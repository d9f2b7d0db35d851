"""Tasks of lm-evaluation-harness, loaded and run by a process of its own (`run_harness`).

`prepare` has each task's data loaded, so that what can't be loaded is told before a GPU is asked for, and keeps a
digest of its documents. The evaluation runs the tasks on the student before and after training. Remote code stays off:
neither data sets nor metrics may bring any, definitions of the user's own may name no Python functions, and tasks that
run code which the model writes are refused.
"""

import os
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import Field, ValidationError

from distill_runtime.contract.outcome import ExitCode
from distill_runtime.contract.sections import HarnessTask
from distill_runtime.errors import RetryError, UserError
from distill_runtime.evaluation.child import ChildFailure, Message, run_child
from distill_runtime.evaluation.results import HarnessEntry
from distill_runtime.prepared import ResolvedPrecision

CHILD = "distill_runtime.evaluation.run_harness"
"""The module that the child runs."""
LIBRARY = "lm-eval"
"""The distribution's name."""
INCLUDE = "evaluation.harness.include"

Line = TypeVar("Line", bound=Message)


class HarnessModel(Message):
    """The model that the tasks are run on."""

    name: str
    """For messages."""
    folder: str
    dtype: ResolvedPrecision
    gpus: int
    trust_remote_code: bool
    """Of the model alone."""
    batch_size: int


class HarnessRequest(Message):
    """What a child is asked."""

    tasks: list[HarnessTask]
    include: str | None
    """Folder with task definitions."""
    chat_template: bool
    model: HarnessModel | None
    """None: the tasks are only loaded."""
    digests: dict[str, str] = Field(default={})
    """Of each task the digest of the documents that `prepare` saw."""


class LoadedTask(Message):
    """One line of the child's file where tasks are only loaded."""

    task: str
    documents: int
    digest: str


class ScoredTask(Message):
    """One line of the child's file where tasks are run."""

    task: str
    entries: list[HarnessEntry]


def library_version() -> str:
    """The installed version of lm-evaluation-harness: another one may score otherwise.

    Raises
    ------
    UserError
        It isn't installed.
    """
    try:
        return version(LIBRARY)
    except PackageNotFoundError as error:
        raise UserError(
            f"evaluation.harness needs the Python package {LIBRARY}, which this environment lacks: use the project's "
            f"runtime image, or install {LIBRARY}.",
            reason="HarnessMissing",
        ) from error


def load_tasks(
    request: HarnessRequest, *, cache: Path, progress: Callable[[int], None] = lambda done: None
) -> list[LoadedTask]:
    """Loads the data of all tasks; `progress` is told how many are loaded.

    Raises
    ------
    UserError
        There is no such task, its data can't be loaded, or it would run code; the sentence names the task.
    RetryError
        A server that has the data doesn't answer, or the child ended otherwise.
    """
    loaded: list[LoadedTask] = []
    _run(request, LoadedTask, loaded.append, progress, cache)
    return loaded


def score_tasks(
    request: HarnessRequest, made: Callable[[ScoredTask], None], *, progress: Callable[[int], None], cache: Path
) -> None:
    """Runs all tasks on the model. `made` gets what was finished, also where a later task fails; `progress` is told how
    many batches the model has read.

    Raises
    ------
    UserError, RetryError
        As `load_tasks`; or a task's documents have changed since `prepare`.
    """
    _run(request, ScoredTask, made, progress, cache)


def _run(
    request: HarnessRequest,
    kind: type[Line],
    made: Callable[[Line], None],
    progress: Callable[[int], None],
    cache: Path,
) -> None:
    library_version()
    with tempfile.TemporaryDirectory(prefix="distill-harness-") as folder:
        names = ("request.json", "results.jsonl", "batches", "failure.json")
        asked, results, batches, failure = (Path(folder) / name for name in names)
        asked.write_text(request.model_dump_json())
        results.touch()
        batches.write_text("0")

        def look() -> None:
            progress(int(batches.read_text()))

        arguments = [str(path) for path in (asked, results, batches, failure)]
        code = run_child(CHILD, arguments, look, environment=_environment(cache))
        for line in results.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):  # The last one of a child that was killed may be a part.
                made(_read(kind, line))
        if failure.exists():
            said = ChildFailure.model_validate_json(failure.read_bytes())
            raise (RetryError if said.retry else UserError)(said.message, reason=said.reason)
        if code != ExitCode.FINISHED:
            names = ", ".join(task.task for task in request.tasks)
            raise RetryError(
                f"the process that runs {LIBRARY} on evaluation.harness.tasks ({names}) ended with code {code}; its "
                "log is above.",
                reason="HarnessFailed",
            )


def _read(kind: type[Line], line: bytes) -> Line:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise RetryError(f"what {LIBRARY}'s process wrote can't be read.", reason="HarnessFailed") from error


def _environment(cache: Path) -> dict[str, str]:
    own = {} if {"HF_HOME", "HF_DATASETS_CACHE"} & os.environ.keys() else {"HF_DATASETS_CACHE": f"{cache}/datasets"}
    # Metrics that the library doesn't have would be fetched as code.
    return {**own, "HF_EVALUATE_OFFLINE": "1"}


def check_definitions(folder: Path, uri: str) -> None:
    """Checks that all task definitions (YAML) of a folder can be read and name no Python code.

    Raises
    ------
    UserError
        There is none, or one can't be read or names a function; the sentence names file and line.
    """
    files = sorted(folder.rglob("*.yaml"))
    if not files:
        raise UserError(f"{INCLUDE}: {uri} has no task definitions (*.yaml).", reason="BadTask")
    for path in files:
        where = f"{INCLUDE}: {uri}: {path.relative_to(folder).as_posix()}"
        try:
            with path.open("rb") as file:
                tags = [(getattr(event, "tag", None), event.start_mark) for event in yaml.parse(file)]
        except yaml.YAMLError as error:
            raise UserError(f"{where} is no YAML ({' '.join(str(error).split())}).", reason="BadTask") from error
        for tag, mark in tags:
            if mark is not None and isinstance(tag, str) and tag.startswith("!") and tag != "!":
                raise UserError(
                    f"{where}:{mark.line + 1}: {tag} names Python code, which definitions of your own may not: write "
                    "the task with templates.",
                    reason="BadTask",
                )
