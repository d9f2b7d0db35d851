"""A model's scores on the job's tasks of lm-evaluation-harness: what is stored is read, what is missing is run."""

from collections.abc import Callable
from pathlib import Path

from distill_runtime.artifacts import fetch_folder
from distill_runtime.contract.report import HarnessScores
from distill_runtime.contract.run import RunConfig
from distill_runtime.errors import RetryError
from distill_runtime.evaluation.harness import (
    HarnessModel,
    HarnessRequest,
    ScoredTask,
    library_version,
    score_tasks,
)
from distill_runtime.evaluation.results import HarnessResult, harness_key, read_result, write_result
from distill_runtime.evaluation.subjects import Subject
from distill_runtime.prepared import Prepared
from distill_runtime.progress import ProgressReporter
from distill_runtime.store.base import ObjectStore


class Benchmarks:
    """The tasks of lm-evaluation-harness of one job."""

    def __init__(
        self, store: ObjectStore, config: RunConfig, prepared: Prepared, *, reporter: ProgressReporter, cache: Path
    ) -> None:
        self._store = store
        self._harness = config.work.evaluation.harness
        self._references = prepared.harness.tasks if prepared.harness is not None else []
        self._include = prepared.harness.include if prepared.harness is not None else None
        self._reporter = reporter
        self._cache = cache
        asked, found = [task.task for task in self._harness.tasks], [task.task for task in self._references]
        if asked != found:
            raise RetryError(
                f"evaluation.harness.tasks are {asked}, but {found} were prepared: run prepare again.",
                reason="NotPrepared",
            )

    def scores(self, subject: Subject) -> dict[str, HarnessScores]:
        """The scores by task: what was asked for, each followed by its parts where it is a group.

        What is missing is run by one child process, which loads the model once.

        Raises
        ------
        UserError
            The data of a task has changed since `prepare`, can't be loaded any more, or lm-eval isn't installed.
        RetryError
            The child ended otherwise.
        """
        if not self._references:
            return {}
        library = library_version()
        keys = {
            task.task: harness_key(subject.identity, task, self._harness, library=library) for task in self._references
        }
        results = {name: read_result(self._store, key, HarnessResult) for name, key in keys.items()}
        missing = {name for name, result in results.items() if result is None}
        if missing:

            def made(scored: ScoredTask) -> None:
                results[scored.task] = write_result(
                    self._store, keys[scored.task], HarnessResult(entries=scored.entries)
                )

            self._run(subject, missing, made)
        found: dict[str, HarnessScores] = {}
        for entry in (entry for result in results.values() if result is not None for entry in result.entries):
            scores = HarnessScores(**entry.model_dump(exclude={"task"}))
            # A task may be asked for by itself and be a part of a group too.
            if entry.task not in found or scores.part_of is None:
                found[entry.task] = scores
        return found

    def _run(self, subject: Subject, names: set[str], made: Callable[[ScoredTask], None]) -> None:
        self._reporter.update(stage=f"lm-eval: {subject.name}", done=0, total=None, unit="batches")
        include = None
        if self._include is not None:
            include = str(fetch_folder(self._store, self._include, self._cache / "artifacts"))
        request = HarnessRequest(
            tasks=[task for task in self._harness.tasks if task.task in names],
            include=include,
            chat_template=self._harness.chat_template,
            model=HarnessModel(
                name=subject.name,
                folder=str(subject.folder()),
                dtype=subject.identity.dtype,
                gpus=subject.gpus,
                trust_remote_code=subject.trust_remote_code,
                batch_size=self._harness.batch_size,
            ),
            digests={task.task: task.digest for task in self._references},
        )
        score_tasks(request, made, progress=lambda done: self._reporter.update(done=done), cache=self._cache)
