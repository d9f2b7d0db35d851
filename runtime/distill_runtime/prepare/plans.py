"""Writes the plans of training data, held-out data and tasks, each unless it exists."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from distill_runtime import layout
from distill_runtime.contract.run import Work
from distill_runtime.contract.sections import ClassificationTask, QuestionAnsweringTask
from distill_runtime.data.chat import TextEncoder
from distill_runtime.data.examples import TaskExamples
from distill_runtime.data.files import DataFile
from distill_runtime.data.plan import Plan, PlanManifest, read_manifest, reference_to, write_plan
from distill_runtime.data.samples import SAMPLES, sample_examples
from distill_runtime.data.sequence import Sequence
from distill_runtime.data.tasks import make_examples
from distill_runtime.data.tokenise import BadRows, Counts, tokenise
from distill_runtime.digests import digest_of
from distill_runtime.prepare.addresses import data_plan_digest, samples_digest, task_plan_digest
from distill_runtime.prepare.inputs import DataSet
from distill_runtime.prepared import PlanReference, SourceCounts, TaskReference
from distill_runtime.progress import ProgressReporter
from distill_runtime.store.base import ObjectMissing, ObjectStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MadePlan:
    """A plan in the store, and what is in it."""

    reference: PlanReference
    manifest: PlanManifest
    reused: bool
    """It was there already."""

    @property
    def longest(self) -> int:
        """Tokens of its longest sequence."""
        return max(length for shard in self.manifest.shards for length in shard.lengths)

    @property
    def longest_for_teacher(self) -> int:
        """Tokens of its longest sequence as the teacher reads it."""
        return max(length for shard in self.manifest.shards for length in shard.read_by_teacher)


@dataclass(frozen=True)
class MadeTask:
    """A task's examples in the store, and its plan."""

    reference: TaskReference
    longest: int
    """Tokens that a model must read at most: the longest sequence, or prompt and answer together."""


@dataclass(frozen=True)
class PlanMaker:
    """Makes plans with one tokenizer.

    `encoder` is called once something must be tokenised.
    """

    store: ObjectStore
    work: Work
    tokenizer_digest: str
    encoder: Callable[[], TextEncoder]
    progress: ProgressReporter

    def data(self, parts: list[DataSet]) -> MadePlan:
        """The plan of the training data or of `data.evaluation`: its parts one after the other.

        Raises
        ------
        UserError
            The data can't be used; see `data.tokenise`.
        """
        data, signal = self.work.data, self.work.signal
        key = layout.plan_key(data_plan_digest(parts, data, signal, self.tokenizer_digest))
        manifest = read_manifest(self.store, key)
        if manifest is not None and int(manifest.report.get("badRows", 0)) <= data.max_bad_rows:
            return MadePlan(reference_to(key, manifest), manifest, reused=True)
        report: dict[str, int | float | str] = {}
        sources: list[SourceCounts] = []
        reference = write_plan(
            self.store,
            key,
            self._sequences(parts, report, sources),
            shard_sequences=signal.shard_sequences,
            report=report,
            sources=sources,
        )
        manifest = read_manifest(self.store, key)
        assert manifest is not None, "it was written a moment ago"
        return MadePlan(reference, manifest, reused=False)

    def _sequences(
        self, parts: list[DataSet], report: dict[str, int | float | str], sources: list[SourceCounts]
    ) -> Iterator[tuple[int, Sequence]]:
        """The sequences of all parts, each with the number of its row among all rows; fills `report` and `sources`."""
        data = self.work.data
        bad = BadRows(limit=data.max_bad_rows)
        total = Counts()
        for part in parts:
            counts = Counts()
            for row, sequence in tokenise(
                part.files,
                self.encoder(),
                name=part.field,
                max_length=data.max_length,
                too_long=data.too_long,
                teacher_max_length=data.teacher_max_length,
                bad=bad,
                counts=counts,
                progress=self.progress,
            ):
                yield total.rows + row, sequence
            log.info(
                "%s: %d sequences, %d tokens, %d targets", part.field, counts.sequences, counts.tokens, counts.targets
            )
            total += counts
            sources.append(counts.of_source())
        report.update(total.report())

    def task(self, task: ClassificationTask | QuestionAnsweringTask, files: list[DataFile]) -> MadeTask:
        """A task's examples, and for classification its plan.

        Raises
        ------
        UserError
            A row of the task can't be used; see `data.tasks`.
        """
        key = layout.plan_key(task_plan_digest(task, files, self.work.data, self.work.signal, self.tokenizer_digest))
        found = self._stored(task, key)
        if found is None:
            self.progress.update(stage="tokenise", message=f"task {task.name}")
            examples, sequences = make_examples(task, files, self.encoder(), max_length=self.work.data.max_length)
            self.store.put(_examples_key(key), examples.model_dump_json().encode())
            if sequences:
                write_plan(self.store, key, sequences, shard_sequences=self.work.signal.shard_sequences)
            found = examples, read_manifest(self.store, key)
        return _described(task.name, task.kind, key, *found)

    def samples(self, evaluation: MadePlan) -> MadeTask | None:
        """The samples of the held-out data, as many of its first sequences as are wanted; None where none is."""
        wanted = self.work.evaluation.samples
        if wanted.count == 0:
            return None
        key = layout.plan_key(samples_digest(wanted, evaluation.reference, self.work.data, self.tokenizer_digest))
        examples = self._examples(key)
        if examples is None:
            plan = Plan(self.store, evaluation.reference)
            if len(plan) < wanted.count:
                log.warning("evaluation.samples.count is %d, but data.evaluation has %d", wanted.count, len(plan))
            sequences = (plan.sequence(number) for number in range(min(wanted.count, len(plan))))
            examples = sample_examples(sequences, self.encoder(), max_new_tokens=wanted.max_new_tokens)
            self.store.put(_examples_key(key), examples.model_dump_json().encode())
        return _described(SAMPLES, "samples", key, examples, None)

    def _stored(
        self, task: ClassificationTask | QuestionAnsweringTask, key: str
    ) -> tuple[TaskExamples, PlanManifest | None] | None:
        manifest = read_manifest(self.store, key)
        if manifest is None and isinstance(task, ClassificationTask):
            return None
        examples = self._examples(key)
        return None if examples is None else (examples, manifest)

    def _examples(self, key: str) -> TaskExamples | None:
        try:
            return TaskExamples.model_validate_json(self.store.get(_examples_key(key)))
        except ObjectMissing:
            return None
        except ValidationError:
            log.warning("%s/%s is damaged and is made again", self.store.uri, _examples_key(key))
            return None


def task_exists(store: ObjectStore, task: TaskReference) -> bool:
    """Is everything of a task that was prepared still in the store?"""
    return store.exists(task.examples_key) and (task.plan is None or plan_exists(store, task.plan))


def plan_exists(store: ObjectStore, plan: PlanReference) -> bool:
    """Is the plan still in the store, and the one that was prepared?"""
    manifest = read_manifest(store, plan.key)
    return manifest is not None and manifest.data_digest == plan.data_digest


def _examples_key(key: str) -> str:
    return f"{key}/examples.json"


def _described(
    name: str,
    kind: Literal["classification", "questionAnswering", "samples"],
    key: str,
    examples: TaskExamples,
    manifest: PlanManifest | None,
) -> MadeTask:
    plan = reference_to(key, manifest) if manifest else None
    lengths = [length for shard in manifest.shards for length in shard.lengths] if manifest else []
    prompts = [len(ids) + examples.max_new_tokens for ids in examples.prompt_ids]
    content = {"examples": examples.model_dump(exclude={"name"}), "sequences": plan.data_digest if plan else None}
    reference = TaskReference(
        name=name, kind=kind, digest=digest_of(content), examples_key=_examples_key(key), plan=plan
    )
    return MadeTask(reference, longest=max(lengths or prompts))
