"""The order of `prepare`."""

import logging
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from distill_runtime import layout
from distill_runtime.contract import environment
from distill_runtime.contract.plan import PLAN_FILE
from distill_runtime.contract.run import RunConfig, Work
from distill_runtime.data.order import Share, training_order
from distill_runtime.errors import UserError
from distill_runtime.prepare.addresses import fingerprint, tokenizer_digest, training_digest
from distill_runtime.prepare.facts import facts_of
from distill_runtime.prepare.inputs import DataSet, Inputs, resolve_inputs
from distill_runtime.prepared import (
    HarnessReferences,
    ModelPin,
    PlanReference,
    Prepared,
    ResolvedPrecision,
    SourceShare,
)
from distill_runtime.process import Facts
from distill_runtime.progress import ProgressReporter, cache_folder, state_folder, write_atomically
from distill_runtime.store.base import ObjectMissing, ObjectStore
from distill_runtime.store.open import open_store

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from distill_runtime.contract.plan import StoredKind
    from distill_runtime.prepare.plans import MadePlan, MadeTask
    from distill_runtime.signals.head import HeadDescription

CANARY_TEXT = (
    "Water boils at one hundred degrees Celsius at sea level. On a high mountain the air is thinner, so it boils "
    "earlier, and food takes longer to cook. That is why recipes for the mountains ask for more time."
)
"""A text that any language model finds likely."""
CANARY_TOKENS = 32
"""Longest canary."""

log = logging.getLogger(__name__)


def prepare(config: RunConfig) -> Facts:
    """Prepares a job, or finds that it is prepared.

    Raises
    ------
    UserError
        The store, a model, the data or a task can't be used; the sentence says which and why.
    """
    progress = ProgressReporter("prepare")
    progress.update(stage="resolve")
    store = open_store(config.work.storage)
    store.probe()
    cache = cache_folder()
    inputs = resolve_inputs(config.work, store=store, cache=cache)
    wanted = fingerprint(config.work, inputs)
    prepared = _stored(store, config, wanted)
    reused = prepared is not None
    if prepared is None:
        prepared, reused = _Preparation(store, config.work, inputs, cache, progress).make(wanted)
        store.put(layout.prepared_key(config), prepared.model_dump_json().encode())
    else:
        log.info("nothing has changed since this job was prepared")
    if os.environ.get(environment.PLAN) == "yes":
        _write_plan(store, config.work, prepared, inputs, cache)
    facts = facts_of(store, config, prepared, reused=reused)
    progress.update(stage="done", message=f"{prepared.train.sequences} sequences, {prepared.total_steps} steps")
    return facts


def _write_plan(store: ObjectStore, work: Work, prepared: Prepared, inputs: Inputs, cache: Path) -> None:
    """Leaves what the job will need in the state folder."""
    from distill_runtime.planning.job import known_of, plan_job
    from distill_runtime.signals.head_source import describe_head

    head = describe_head(inputs.teacher.folder, prepared.vocabulary)
    known = known_of(store, work, prepared.train, prepared.total_steps, head, prepared.student, cache)
    plan = plan_job(known, prepared, teacher=inputs.teacher.folder)
    write_atomically(state_folder() / PLAN_FILE, plan.model_dump_json(by_alias=True, indent=2))


def _stored(store: ObjectStore, config: RunConfig, wanted: str) -> Prepared | None:
    """What an earlier run left, if it is of the same inputs and all of it is still there."""
    from distill_runtime.artifacts import stored_digest
    from distill_runtime.prepare.plans import plan_exists, task_exists

    try:
        prepared = Prepared.model_validate_json(store.get(layout.prepared_key(config)))
    except ObjectMissing:
        return None
    except ValidationError:
        log.info("what another version prepared is prepared again")
        return None
    if prepared.fingerprint != wanted:
        return None
    plans = [plan for plan in (prepared.train, prepared.evaluation) if plan is not None]
    tasks = [*prepared.tasks, *([prepared.samples] if prepared.samples else [])]
    whole = all(plan_exists(store, plan) for plan in plans) and all(task_exists(store, task) for task in tasks)
    student = prepared.student.uri
    if student.startswith("store://") and stored_digest(store, student.removeprefix("store://")) is None:
        whole = False
    if prepared.harness is not None and prepared.harness.include is not None:
        whole = whole and stored_digest(store, prepared.harness.include) is not None
    if not whole:
        log.info("something of what was prepared is gone from the store and is made again")
    return prepared if whole else None


class _Preparation:
    """The work itself."""

    def __init__(
        self, store: ObjectStore, work: Work, inputs: Inputs, cache_folder: Path, progress: ProgressReporter
    ) -> None:
        self._store = store
        self._work = work
        self._inputs = inputs
        self._cache = cache_folder
        self._progress = progress

    def make(self, wanted: str) -> tuple[Prepared, bool]:
        """Everything that `prepared.json` says, and whether all plans were there already."""
        from distill_runtime.prepare.checks import check_row
        from distill_runtime.prepare.facts import data_report
        from distill_runtime.signals.addresses import stored_signal
        from distill_runtime.signals.head_source import describe_head
        from distill_runtime.signals.row_format import held_out_row, training_row
        from distill_runtime.student.architectures import check_student
        from distill_runtime.student.optimizer import optimizer_states
        from distill_runtime.teacher.architectures import check_engine

        work, inputs = self._work, self._inputs
        check_engine(work.teacher.engine, inputs.teacher.folder)
        if inputs.student_config is None:
            # Of a bare configuration it is known when the model is made.
            check_student((inputs.student or inputs.teacher).folder, packing=work.training.packing)
        optimizer_states(work.training.optimizer)
        harness = self._harness()
        tokenizer, vocabulary = self._tokenizers()
        head = describe_head(inputs.teacher.folder, vocabulary)
        if work.signal.kind != "auto":
            check_row(training_row(work, kind=work.signal.kind, hidden_size=head.hidden_size, vocabulary=vocabulary))
        train, evaluation, tasks, samples = self._plans(tokenizer)
        self._progress.update(stage="initialise", message=None)
        student = self._student(vocabulary, train.reference)
        teacher_dtype, precision = self._precisions()
        sizes = [len(shard.lengths) for shard in train.manifest.shards]
        sources = self._sources(train)
        steps = training_order(sizes, work.training, [source.share for source in sources]).total_steps
        kind, why = self._signal_kind(train.reference, steps, head, student)
        row = training_row(work, kind=kind, hidden_size=head.hidden_size, vocabulary=vocabulary)
        digest = inputs.teacher.pin.digest
        train_signal = stored_signal(digest, teacher_dtype, row)
        held_out_signal = stored_signal(digest, teacher_dtype, held_out_row(work, hidden_size=head.hidden_size))
        prepared = Prepared(
            fingerprint=wanted,
            train=train.reference,
            evaluation=evaluation.reference if evaluation else None,
            tasks=[task.reference for task in tasks],
            samples=samples.reference if samples else None,
            harness=harness,
            teacher=inputs.teacher.pin,
            teacher_dtype=teacher_dtype,
            student=student,
            training_precision=precision,
            vocabulary=vocabulary,
            train_signal=train_signal,
            held_out_signal=held_out_signal,
            signal_choice=why,
            learns_from_teacher=work.learns_from_teacher,
            compares_with_teacher=work.compares_with_teacher,
            teacher_canary=self._canary(tokenizer),
            total_steps=steps,
            training_digest=training_digest(
                work,
                train=train.reference,
                shard_sizes=sizes,
                sources=sources,
                evaluation=evaluation.reference if evaluation else None,
                train_signal=train_signal,
                held_out_signal=held_out_signal,
                student=student,
                precision=precision,
            ),
            report=data_report(train, evaluation),
            sources=sources,
        )
        return prepared, train.reused and (evaluation is None or evaluation.reused)

    def _signal_kind(
        self, train: PlanReference, steps: int, head: "HeadDescription", student: ModelPin
    ) -> "tuple[StoredKind, str]":
        """The kind of the training data's signals, and why."""
        from distill_runtime.planning.job import known_of, plan_signal

        named = self._work.signal.kind
        if named != "auto":
            return named, "signal.kind names it."
        chosen = plan_signal(known_of(self._store, self._work, train, steps, head, student, self._cache))
        log.info("signal.kind auto: %s is %s", chosen.kind, chosen.why)
        return chosen.kind, chosen.why

    def _harness(self) -> HarnessReferences | None:
        """Tasks of lm-evaluation-harness: first of all, since their data may not be there."""
        from distill_runtime.prepare.harness import load_harness

        harness = self._work.evaluation.harness
        if not harness.tasks:
            return None
        self._progress.update(stage="load tasks", done=0, total=len(harness.tasks), unit="tasks")
        loaded = load_harness(
            self._store,
            harness,
            self._inputs.definitions,
            cache=self._cache,
            progress=lambda done: self._progress.update(done=done),
        )
        self._progress.update(stage="resolve", done=0, total=None)
        return loaded

    def _tokenizers(self) -> "tuple[PreTrainedTokenizerBase, int]":
        """The teacher's tokenizer, and the vocabulary that both models have."""
        from distill_runtime.data.vocabulary import compare_vocabularies, load_tokenizer, vocabulary_size

        teacher = load_tokenizer(
            self._inputs.teacher.folder,
            uri=self._work.teacher.model,
            trust_remote_code=self._work.teacher.trust_remote_code,
        )
        if self._inputs.student is None or self._work.student.model is None:
            return teacher, vocabulary_size(teacher)  # A student that is made has the teacher's.
        student = load_tokenizer(
            self._inputs.student.folder,
            uri=self._work.student.model,
            trust_remote_code=self._work.student.trust_remote_code,
        )
        if teacher.chat_template and student.chat_template and teacher.chat_template != student.chat_template:
            log.warning("teacher and student have different chat templates: the data is rendered with the teacher's")
        return teacher, compare_vocabularies(teacher, student)

    def _plans(
        self, tokenizer: "PreTrainedTokenizerBase"
    ) -> "tuple[MadePlan, MadePlan | None, list[MadeTask], MadeTask | None]":
        """Plans of training and held-out data, tasks and samples; checked against what the models can read."""
        from distill_runtime.data.chat import TextEncoder
        from distill_runtime.prepare.plans import PlanMaker

        work, inputs = self._work, self._inputs

        @cache
        def encoder() -> TextEncoder:
            return TextEncoder(
                tokenizer,
                columns=work.data.columns,
                chat_template=work.data.chat_template,
                prompt_format=work.data.prompt_format,
                targets=work.data.targets,
                system_prompt=work.data.system_prompt,
                teacher_prompt=work.data.teacher_prompt,
            )

        maker = PlanMaker(self._store, work, tokenizer_digest(inputs.teacher.folder), encoder, self._progress)
        train = maker.data(inputs.train)
        evaluation = maker.data([DataSet("data.evaluation", inputs.evaluation)]) if inputs.evaluation else None
        tasks = [maker.task(task, inputs.tasks[task.name]) for task in work.evaluation.tasks]
        plans = {"data.sources" if work.data.sources else "data.train": train} | (
            {"data.evaluation": evaluation} if evaluation is not None else {}
        )
        asked = {f"the task {task.reference.name}": task.longest for task in tasks}
        field = "data.maxLength" if work.data.teacher_max_length is None else "data.teacherMaxLength"
        of_teacher = {name: plan.longest_for_teacher for name, plan in plans.items()}
        self._check_lengths("teacher", of_teacher | asked, f"set {field} to {{limit}} or less")
        of_student = {name: plan.longest for name, plan in plans.items()}
        self._check_lengths("student", of_student | asked, "set data.maxLength to {limit} or less")
        samples = maker.samples(evaluation) if evaluation is not None else None
        if samples is not None:
            for who in ("teacher", "student"):
                longest = {"evaluation.samples": samples.longest}
                self._check_lengths(who, longest, "lower evaluation.samples.maxNewTokens")
        return train, evaluation, tasks, samples

    def _sources(self, train: "MadePlan") -> list[SourceShare]:
        """The sources of the training data with their shares in an epoch; none where there is `data.train`."""
        sources: list[SourceShare] = []
        for number, source in enumerate(self._work.data.sources or []):
            counts = train.manifest.sources[number]
            epoch = Share(counts.sequences, source.weight).epoch_sequences
            if epoch == 0:
                raise UserError(
                    f"data.sources[{number}].weight {source.weight:g} of {counts.sequences} sequences is less than "
                    "half a sequence in an epoch: raise it, or leave the source out.",
                    reason="NoData",
                )
            sources.append(
                SourceShare(**counts.model_dump(), uri=source.uri, weight=source.weight, epoch_sequences=epoch)
            )
        return sources

    def _check_lengths(self, who: Literal["teacher", "student"], lengths: dict[str, int], remedy: str) -> None:
        from distill_runtime.prepare.checks import check_context

        uri, model = self._work.teacher.model, self._inputs.teacher
        if who == "student":
            if self._inputs.student is None or self._work.student.model is None:
                return
            uri, model = self._work.student.model, self._inputs.student
        where, longest = max(lengths.items(), key=lambda item: item[1])
        check_context(model.folder, who=who, uri=uri, longest=longest, where=where, remedy=remedy)

    def _student(self, vocabulary: int, train: PlanReference) -> ModelPin:
        from distill_runtime.prepare.student import check_parts, initial_student
        from distill_runtime.signals.head_source import describe_head

        if self._inputs.student is not None:
            describe_head(self._inputs.student.folder, vocabulary)
            pin = self._inputs.student.pin
        else:
            pin = initial_student(
                self._store, self._work, self._inputs, train, cache=self._cache, vocabulary=vocabulary
            )
        check_parts(pin, self._store, self._work, cache=self._cache, vocabulary=vocabulary)
        return pin

    def _precisions(self) -> tuple[ResolvedPrecision, ResolvedPrecision]:
        """The teacher's and the student's."""
        from distill_runtime.precision import checkpoint_dtype, resolve_precision

        work = self._work
        teacher = resolve_precision(
            work.teacher.dtype,
            checkpoint_dtype=checkpoint_dtype(self._inputs.teacher.folder),
            gpus=work.teacher.gpus,
        )
        if work.training.precision == "auto" and work.training.zero_stage == 0:
            log.info("training.precision auto is float32, since training.zeroStage 0 has no 16-bit training")
            return teacher, "float32"
        student = resolve_precision(
            work.training.precision, checkpoint_dtype="bfloat16", gpus=work.student.gpus_per_worker
        )
        return teacher, student

    def _canary(self, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
        ids = tokenizer(CANARY_TEXT)["input_ids"]
        assert isinstance(ids, list)
        canary = [int(number) for number in ids[: min(CANARY_TOKENS, self._work.data.max_length)]]
        if len(canary) < 2:
            raise UserError(
                f"the tokenizer of {self._work.teacher.model} makes {len(canary)} tokens of a text of "
                f"{len(CANARY_TEXT)} characters: it is broken.",
                reason="TokenizerUnsupported",
            )
        return canary
