"""The scores of one model after the other: what is stored is read, what is missing is made and stored.

A model is loaded only where something of it is missing, and no two at once.
"""

import gc
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from distill_runtime.contract.report import Scores, TaskScores
from distill_runtime.contract.run import RunConfig
from distill_runtime.contract.sections import QuestionAnsweringTask, Samples
from distill_runtime.data.examples import TaskExamples
from distill_runtime.data.plan import Plan
from distill_runtime.errors import RetryError
from distill_runtime.evaluation.calibration import expected_calibration_error
from distill_runtime.evaluation.generation import GenerationRequest, generate_answers
from distill_runtime.evaluation.labels import choose_labels, label_lengths
from distill_runtime.evaluation.metrics import answer_scores, classification_scores
from distill_runtime.evaluation.results import (
    Counted,
    HeldOut,
    LabelScores,
    Loaded,
    ModelIdentity,
    Predictions,
    answers_key,
    classification,
    held_out_key,
    labels_key,
    loaded_key,
    parameters_key,
    question_answering,
    read_result,
    teacher_identity,
    write_result,
)
from distill_runtime.evaluation.scoring import (
    ModelStates,
    States,
    TeacherStates,
    load_model,
    score_held_out,
    score_labels,
    scoring_device,
)
from distill_runtime.prepared import Prepared, TaskReference
from distill_runtime.progress import ProgressReporter
from distill_runtime.skeleton import skeleton
from distill_runtime.store.base import ObjectMissing, ObjectStore
from distill_runtime.transport.interface import SignalSource

GENERATION_TOKENS = 8192
"""Tokens, prompts and answers together, that a generating engine holds at a time."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """A model that is scored."""

    name: str
    """For people: `the teacher`, `the student before training`, `the trained student`."""
    uri: str
    """For the report."""
    identity: ModelIdentity
    folder: Callable[[], Path]
    """Its folder on this machine; called only where the model is needed."""
    configuration: Callable[[], Path | None]
    """A folder with its `config.json`, or None where the weights would have to be fetched for it."""
    gpus: int
    """GPUs that generate its answers."""
    trust_remote_code: bool


class Evaluator:
    """Scores the models of one job."""

    def __init__(
        self,
        store: ObjectStore,
        config: RunConfig,
        prepared: Prepared,
        *,
        open_signals: Callable[[], SignalSource],
        reporter: ProgressReporter,
    ) -> None:
        self._store = store
        self._config = config
        self._prepared = prepared
        self._open_signals = open_signals
        self._reporter = reporter
        self._source: SignalSource | None = None
        self._examples: dict[str, TaskExamples] = {}
        self._device = scoring_device()
        self.made = 0
        """Results that were made."""
        self.reused = 0
        """Results that were there already."""

    def close(self) -> None:
        """Ends reading of signals."""
        if self._source is not None:
            self._source.close()

    @cached_property
    def _teacher_states(self) -> TeacherStates:
        self._source = self._open_signals()
        return TeacherStates(self._source, self._device)

    def examples(self, task: TaskReference) -> TaskExamples:
        """The examples of a task, or the samples.

        Raises
        ------
        RetryError
            They are gone.
        """
        if task.examples_key not in self._examples:
            try:
                stored = self._store.get(task.examples_key)
            except ObjectMissing as error:
                raise RetryError(
                    f"{self._store.uri}/{error.key}, the examples of {task.name}, is gone: run prepare again.",
                    reason="NotPrepared",
                ) from error
            self._examples[task.examples_key] = TaskExamples.model_validate_json(stored)
        return self._examples[task.examples_key]

    def teacher(self, subject: Subject) -> Scores:
        """The teacher's scores from its signals, none where it isn't compared with. Its answers must be stored: only
        `answers` makes them.

        Raises
        ------
        RetryError
            Answers or signals are missing.
        """
        identity = teacher_identity(self._prepared)
        if not self._prepared.compares_with_teacher:
            return Scores(model=subject.uri, digest=identity.digest, parameters=self.teacher_parameters(subject))
        held_out = self._held_out(identity, subject, lambda: self._teacher_states)
        tasks = {
            task.name: self._classified(identity, task, subject, lambda: self._teacher_states)
            for task in self._prepared.tasks
            if task.kind == "classification"
        }
        for task, settings in question_answering(self._config, self._prepared):
            tasks[task.name] = self._answered(task, self.teacher_answers(task, settings))
        return self._scores(subject, self.teacher_parameters(subject), held_out, tasks)

    def teacher_answers(self, task: TaskReference, settings: QuestionAnsweringTask | Samples) -> Predictions:
        """The teacher's answers, which must be stored.

        Raises
        ------
        RetryError
            They are missing.
        """
        key = answers_key(teacher_identity(self._prepared), task, settings)
        stored = self._stored(key, Predictions)
        if stored is None:
            raise RetryError(
                f"the teacher's answers to {_field(task)} are missing ({self._store.uri}/{key}): run the teacher's "
                "evaluation first.",
                reason="TeacherAnswersMissing",
                needs="signals",
            )
        return stored

    def teacher_parameters(self, subject: Subject) -> int | None:
        """The number of the teacher's weights, by its configuration alone; None where that isn't at hand.

        Found once, by the first job that has the teacher's folder, and then stored.
        """
        key = parameters_key(subject.identity)
        stored = read_result(self._store, key, Counted)
        if stored is not None:
            return stored.parameters
        folder = subject.configuration()
        if folder is None:
            log.warning("the number of weights of %s is unknown: its configuration is not at hand", subject.uri)
            return None
        parameters = count_parameters(folder, trust_remote_code=subject.trust_remote_code)
        return write_result(self._store, key, Counted(parameters=parameters)).parameters

    def student(self, subject: Subject) -> Scores:
        """The scores of a student. It is loaded with transformers unless that was done before for the same files.

        Raises
        ------
        UserError
            It can't be loaded, or its results are not finite.
        """
        with self._model(subject) as model:
            key = loaded_key(subject.identity)
            loaded = read_result(self._store, key, Loaded)
            if loaded is None:
                loaded = write_result(self._store, key, Loaded(parameters=model().parameters))
            held_out = self._held_out(subject.identity, subject, model)
            tasks = {
                task.name: self._classified(subject.identity, task, subject, model)
                for task in self._prepared.tasks
                if task.kind == "classification"
            }
        for task, settings in question_answering(self._config, self._prepared):
            tasks[task.name] = self._answered(task, self.answers(subject, task, settings))
        return self._scores(subject, loaded.parameters, held_out, tasks)

    @contextmanager
    def _model(self, subject: Subject) -> Iterator[Callable[[], ModelStates]]:
        """A function that loads the model when it is first called; the memory is free again at the end."""
        held: list[ModelStates] = []

        def model() -> ModelStates:
            if not held:
                self._reporter.update(stage=f"load {subject.name}", done=0, total=None)
                held.append(
                    load_model(
                        subject.folder(),
                        name=subject.name,
                        dtype=subject.identity.dtype,
                        vocabulary=self._prepared.vocabulary,
                        canary=self._prepared.teacher_canary,
                        device=self._device,
                        trust_remote_code=subject.trust_remote_code,
                    )
                )
            return held[0]

        try:
            yield model
        finally:
            held.clear()
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def answers(self, subject: Subject, task: TaskReference, settings: QuestionAnsweringTask | Samples) -> Predictions:
        """The model's answers to the questions of a task, or to the samples."""
        key = answers_key(subject.identity, task, settings)
        stored = self._stored(key, Predictions)
        if stored is not None:
            return stored
        examples = self.examples(task)
        told = self._progress(f"{task.name}: {subject.name}", len(examples.prompt_ids), "answers")
        request = GenerationRequest(
            model=str(subject.folder()),
            field=_field(task),
            engine=settings.engine,
            dtype=subject.identity.dtype,
            gpus=subject.gpus,
            trust_remote_code=subject.trust_remote_code,
            prompts=examples.prompt_ids,
            stop_token_ids=examples.stop_token_ids,
            max_new_tokens=settings.max_new_tokens,
            batch_tokens=GENERATION_TOKENS,
        )
        return self._store_made(key, Predictions(texts=generate_answers(request, progress=told)))

    def _held_out(self, identity: ModelIdentity, subject: Subject, states: Callable[[], States]) -> HeldOut | None:
        if self._prepared.evaluation is None:
            return None
        key = held_out_key(identity, self._prepared)
        stored = self._stored(key, HeldOut)
        if stored is not None:
            return stored
        plan = Plan(self._store, self._prepared.evaluation)
        model = states()
        told = self._progress(f"held out: {subject.name}", len(plan), "sequences")
        teacher = self._teacher_states if self._prepared.compares_with_teacher else None
        return self._store_made(key, score_held_out(plan, teacher, model, name=subject.name, told=told))

    def _classified(
        self, identity: ModelIdentity, task: TaskReference, subject: Subject, states: Callable[[], States]
    ) -> TaskScores:
        key = labels_key(identity, task)
        examples = self.examples(task)
        scores = self._stored(key, LabelScores)
        assert task.plan is not None, "prepare makes a plan for each classification task"
        plan = Plan(self._store, task.plan)
        if scores is None:
            told = self._progress(f"{task.name}: {subject.name}", len(plan), "sequences")
            made = score_labels(plan, examples, states(), name=subject.name, told=told)
            scores = self._store_made(key, made)
        normalisation = classification(self._config, task).normalisation
        chosen = choose_labels(examples, scores, label_lengths(normalisation, examples, plan))
        found = classification_scores(chosen, [answers[0] for answers in examples.answers])
        return found.model_copy(update={"normalisation": normalisation})

    def _answered(self, task: TaskReference, predictions: Predictions) -> TaskScores:
        return answer_scores(predictions.texts, self.examples(task).answers)

    def _stored(self, key: str, kind: type[Any]) -> Any:
        stored = read_result(self._store, key, kind)
        if stored is not None:
            self.reused += 1
            self._reporter.update(reused=self.reused)
        return stored

    def _store_made(self, key: str, result: Any) -> Any:
        self.made += 1
        return write_result(self._store, key, result)

    def _progress(self, stage: str, total: int, unit: str) -> Callable[[int], None]:
        self._reporter.update(stage=stage[:64], done=0, total=total, unit=unit)
        return lambda done: self._reporter.update(done=done)

    def _scores(
        self, subject: Subject, parameters: int | None, held_out: HeldOut | None, tasks: dict[str, TaskScores]
    ) -> Scores:
        return Scores(
            model=subject.uri,
            digest=subject.identity.digest,
            kl_to_teacher=held_out.kl_to_teacher if held_out else None,
            top1_agreement=held_out.top1_agreement if held_out else None,
            perplexity=perplexity(held_out.cross_entropy) if held_out else None,
            expected_calibration_error=expected_calibration_error(held_out.calibration) if held_out else None,
            parameters=parameters,
            tasks={task.name: tasks[task.name] for task in self._prepared.tasks},
        )


def _field(task: TaskReference) -> str:
    """What the user calls it: `evaluation.tasks[capitals]`."""
    return "evaluation.samples" if task.kind == "samples" else f"evaluation.tasks[{task.name}]"


def perplexity(cross_entropy: float) -> float | None:
    """exp of a mean cross entropy in nats; None where that is more than a float can hold."""
    try:
        return math.exp(cross_entropy)
    except OverflowError:
        return None


def count_parameters(folder: Path, *, trust_remote_code: bool = False) -> int:
    """Weights of the model that a folder's `config.json` describes; no weight is read."""
    return int(skeleton(folder, trust_remote_code=trust_remote_code).num_parameters())
