"""One job's evaluation: its models, their scores, the report."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from distill_runtime import layout
from distill_runtime.artifacts import fetch_folder
from distill_runtime.contract import environment
from distill_runtime.contract.facts import TeacherFacts
from distill_runtime.contract.report import Report, Sample, Scores
from distill_runtime.contract.report import Subject as WhoseScores
from distill_runtime.contract.run import Role, RunConfig
from distill_runtime.errors import RetryError
from distill_runtime.evaluation.assembly import assemble, facts_of
from distill_runtime.evaluation.benchmarks import Benchmarks
from distill_runtime.evaluation.publishing import Documents, model_uri, publish, report_uri
from distill_runtime.evaluation.results import (
    ModelIdentity,
    Predictions,
    answers_key,
    generated,
    read_result,
    teacher_identity,
)
from distill_runtime.evaluation.sharing import SharedResults
from distill_runtime.evaluation.subjects import Evaluator, Subject
from distill_runtime.locations import local_path, scheme_of
from distill_runtime.models import resolve_model, resolve_pin
from distill_runtime.prepared import ModelPin, read_prepared
from distill_runtime.process import Facts, replica_name
from distill_runtime.progress import ProgressReporter
from distill_runtime.store.open import open_store
from distill_runtime.student.curves import read_curves
from distill_runtime.student.finish import Finished, read_finished
from distill_runtime.student.model_card import model_card
from distill_runtime.transport.interface import SignalSource
from distill_runtime.transport.objectstore_source import ObjectStoreSource
from distill_runtime.transport.patience import patient


class EvaluationJob:
    """The evaluation of one job. `cache` takes downloaded models and signals; `role` is the container's."""

    def __init__(self, config: RunConfig, *, cache: Path, role: Role = "evaluate") -> None:
        self._config = config
        self._cache = cache
        self._store = patient(open_store(config.work.storage))
        self._prepared = read_prepared(self._store, config)
        self._reporter = ProgressReporter(role)
        self._evaluator = Evaluator(
            self._store, config, self._prepared, open_signals=self._signals, reporter=self._reporter
        )
        self._benchmarks = Benchmarks(self._store, config, self._prepared, reporter=self._reporter, cache=cache)

    def teacher(self) -> Facts:
        """Makes the teacher's answers that are not stored yet: what only the teacher itself can say.

        Several replicas share the work. When one ends, all of it is stored.

        Raises
        ------
        UserError
            A prompt doesn't fit the teacher, the engine doesn't support it, or its files have changed.
        RetryError
            An engine failed.
        """
        subject = self._teacher()
        makers = {
            answers_key(subject.identity, task, settings): partial(self._evaluator.answers, subject, task, settings)
            for task, settings in generated(self._config, self._prepared)
        }
        shared = SharedResults(
            self._store,
            uid=self._config.uid,
            attempt=self._config.attempt,
            replica=replica_name(),
            lease_seconds=self._config.work.signal.lease_seconds,
        )
        made = shared.make(makers, lambda: self._reporter.update(stage="wait", done=0, total=None))
        for key in makers.keys() - made:
            read_result(self._store, key, Predictions)  # One that can't be read is removed, and the next attempt's.
        return TeacherFacts(answers_made=len(made), answers_reused=len(makers) - len(made)).flat()

    def students(self) -> Facts:
        """Scores all three models and publishes the report. The trained student is loaded again for it, from what was
        stored.

        Raises
        ------
        UserError
            A model can't be loaded or gives results that are not finite.
        RetryError
            The training isn't finished, or the teacher's signals or answers are missing.
        """
        finished = read_finished(self._store, self._prepared.training_digest)
        if finished is None:
            raise RetryError(
                f"{self._store.uri}/{layout.training_key(self._prepared.training_digest)} holds no finished training: "
                "run the student first.",
                reason="NotTrained",
            )
        try:
            report = self._report(finished)
        finally:
            self._evaluator.close()
        documents = Documents.of(report, self._card(report, finished))
        publish(self._store, self._config, self._prepared.training_digest, documents, self._trained_folder(finished))
        return facts_of(report, page=report_uri(self._store, self._prepared.training_digest))

    def _report(self, finished: Finished) -> Report:
        # The trained student comes first: what is wrong with it should not wait for the others.
        trained, initial = self._trained(finished), self._initial()
        after = self._evaluator.student(trained)
        before = self._evaluator.student(initial)
        teacher = self._evaluator.teacher(self._teacher())
        after = after.model_copy(update={"harness": self._benchmarks.scores(trained)})
        before = before.model_copy(update={"harness": self._benchmarks.scores(initial)})
        return assemble(
            self._config,
            self._prepared,
            teacher=teacher,
            before=before,
            after=after,
            samples=self._samples(before=initial, after=trained),
            curves=read_curves(self._store, self._prepared.training_digest),
            steps=finished.steps,
            exported_step=finished.exported_step,
            model=model_uri(self._store, self._config, finished.model),
            packing_efficiency=finished.packing_efficiency,
        )

    def _samples(self, *, before: Subject, after: Subject) -> list[Sample]:
        task, settings = self._prepared.samples, self._config.work.evaluation.samples
        if task is None:
            return []
        examples = self._evaluator.examples(task)
        of_after, of_before = (self._evaluator.answers(subject, task, settings).texts for subject in (after, before))
        of_teacher: list[str] | list[None] = [None] * len(examples.prompts)
        if self._prepared.compares_with_teacher:
            of_teacher = self._evaluator.teacher_answers(task, settings).texts
        rows = zip(examples.prompts, examples.answers, of_teacher, of_before, of_after, strict=True)
        return [
            Sample(prompt=prompt, reference=right[0], teacher=teacher, student_before=first, student_after=last)
            for prompt, right, teacher, first, last in rows
        ]

    def _card(self, report: Report, finished: Finished) -> str:
        scores: dict[WhoseScores, Scores] = {
            "studentBefore": report.student_before,
            "studentAfter": report.student_after,
        }
        if self._prepared.compares_with_teacher:
            scores["teacher"] = report.teacher
        return model_card(
            self._config,
            self._prepared,
            steps=finished.steps,
            exported_step=finished.exported_step,
            held_out_loss=finished.held_out_loss,
            scores=scores,
        )

    def _teacher(self) -> Subject:
        pin, teacher = self._prepared.teacher, self._config.work.teacher
        return Subject(
            name="the teacher",
            uri=pin.uri,
            identity=teacher_identity(self._prepared),
            folder=lambda: self._pinned(pin),
            configuration=lambda: self._configuration(pin),
            gpus=teacher.gpus,
            trust_remote_code=teacher.trust_remote_code,
        )

    def _initial(self) -> Subject:
        pin = self._prepared.student
        uri = pin.uri.replace("store://", f"{self._store.uri}/", 1) if pin.uri.startswith("store://") else pin.uri
        return self._student("the student before training", uri, pin.digest, lambda: self._pinned(pin))

    def _trained(self, finished: Finished) -> Subject:
        uri = model_uri(self._store, self._config, finished.model)
        return self._student("the trained student", uri, finished.model_digest, lambda: self._trained_folder(finished))

    def _student(self, name: str, uri: str, digest: str, folder: Callable[[], Path]) -> Subject:
        work = self._config.work
        return Subject(
            name=name,
            uri=uri,
            identity=ModelIdentity(digest=digest, dtype=self._prepared.training_precision),
            folder=folder,
            configuration=folder,
            gpus=min(1, work.student.gpus_per_worker),
            trust_remote_code=work.trusts_student,
        )

    def _pinned(self, pin: ModelPin) -> Path:
        return resolve_pin(pin, self._config.work.storage, cache=self._cache, store=self._store)

    def _configuration(self, pin: ModelPin) -> Path | None:
        match scheme_of(pin.uri):
            case "file" | "pvc":
                folder = local_path(pin.uri)
                return folder if (folder / "config.json").is_file() else None
            case "hf":
                return resolve_model(
                    pin.uri, self._config.work.storage, cache=self._cache, require_weights=False
                ).folder
            case _:
                return None

    def _trained_folder(self, finished: Finished) -> Path:
        return fetch_folder(self._store, finished.model, self._cache / "artifacts")

    def _signals(self) -> SignalSource:
        teachers = int(os.environ.get(environment.TEACHERS, "0"))
        return ObjectStoreSource(
            self._store, self._config, self._prepared, cache=self._cache, teachers=teachers, publishes=False
        )
