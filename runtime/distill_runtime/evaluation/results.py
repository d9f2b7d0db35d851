"""Results in the store, each under the digest of what made it. First writer wins.

What is stored is what takes a model to make: sums over held-out targets, log-probabilities of labels, generated
answers. Metrics are computed from them whenever they are asked for, so that a better metric needs no model again.

Nothing heavy is imported here: `prepare` and the command line ask what is missing.
"""

from typing import Literal, TypeVar

from pydantic import ValidationError

from distill_runtime import layout
from distill_runtime.contract.run import RunConfig
from distill_runtime.contract.sections import ClassificationTask, QuestionAnsweringTask, Samples
from distill_runtime.digests import digest_of
from distill_runtime.errors import RetryError
from distill_runtime.prepared import Prepared, Record, ResolvedPrecision, TaskReference
from distill_runtime.store.base import ObjectMissing, ObjectStore

LOADING_VERSION = 1
"""Raised when the same model would be found to load, or to have another number of weights, otherwise."""
SCORING_VERSION = 2
"""Raised when the same model and data would give other sums or log-probabilities, or what is stored of them has another
form. 2: sums of calibration; labels' log-probabilities in place of the labels that were chosen."""
GENERATION_VERSION = 1
"""Raised when the same model and prompts would give other answers."""


class Loaded(Record):
    """The model was loaded with transformers, and read a text with finite results."""

    parameters: int
    """Number of weights; tied ones count once."""


class Counted(Record):
    """The number of the weights that a model's configuration describes."""

    parameters: int


class CalibrationBins(Record):
    """Predictions by their confidence, in bins of equal width; see `losses.metrics.calibration_sums`."""

    predictions: list[int]
    """Predictions in each bin. [bins]"""
    confidence: list[float]
    """Sum of their confidence. [bins]"""
    correct: list[int]
    """Those of them that are right. [bins]"""


class HeldOut(Record):
    """A model on the held-out targets."""

    targets: int
    kl_to_teacher: float | None
    """Mean of KL(teacher || model), in nats; None where it isn't compared with the teacher."""
    top1_agreement: float | None
    """Part of the targets where both have the same most likely token; None as above."""
    cross_entropy: float
    """Mean of -log p(target), in nats."""
    calibration: CalibrationBins
    """Of the next token at each target: the most likely one is the prediction."""


class LabelScores(Record):
    """How likely a model finds each label of a classification task as the answer to each example."""

    log_probabilities: list[list[float]]
    """Of the label's tokens and the end of the turn together, in nats. [examples, labels]"""


class Predictions(Record):
    """The answers that a model generates to the examples of a task, or to the samples."""

    texts: list[str]
    """[examples]"""


Result = TypeVar("Result", bound=Record)


class ModelIdentity(Record):
    """What of a model decides its results."""

    digest: str
    dtype: ResolvedPrecision
    signal: str | None = None
    """For the teacher: the digest of its stored signals, from which its scores are computed."""


def teacher_identity(prepared: Prepared) -> ModelIdentity:
    """The teacher as all jobs know it: nothing of the student or the training is in it."""
    return ModelIdentity(
        digest=prepared.teacher.digest, dtype=prepared.teacher_dtype, signal=prepared.held_out_signal.digest
    )


def loaded_key(model: ModelIdentity) -> str:
    """Where it is said that this model could be loaded."""
    return _key("loaded", LOADING_VERSION, model=_alone(model))


def parameters_key(model: ModelIdentity) -> str:
    """Where the number of this model's weights is, where it was counted without loading the model."""
    return _key("parameters", LOADING_VERSION, model=model.digest)


def held_out_key(model: ModelIdentity, prepared: Prepared) -> str:
    """Where the scores of this model on the held-out plan are.

    The signals are part of the address of every model's that is compared with the teacher, since KL and agreement are
    told against them.
    """
    assert prepared.evaluation is not None
    return _key(
        "heldOut",
        SCORING_VERSION,
        model=model.model_dump(),
        signal=prepared.held_out_signal.digest if prepared.compares_with_teacher else None,
        data=prepared.evaluation.data_digest,
    )


def labels_key(model: ModelIdentity, task: TaskReference) -> str:
    """Where this model's log-probabilities of a classification task's labels are."""
    return _key("labels", SCORING_VERSION, model=model.model_dump(), task=task.digest)


def answers_key(model: ModelIdentity, task: TaskReference, settings: QuestionAnsweringTask | Samples) -> str:
    """Where this model's generated answers for a question answering task, or to the samples, are.

    They come from the model itself: how its signals are stored changes nothing.
    """
    return _key(
        "answers",
        GENERATION_VERSION,
        model=_alone(model),
        task=task.digest,
        engine=settings.engine,
        max_new_tokens=settings.max_new_tokens,
    )


def question_answering(config: RunConfig, prepared: Prepared) -> list[tuple[TaskReference, QuestionAnsweringTask]]:
    """The job's question answering tasks: what was prepared, and how it is to be run."""
    tasks = [(reference, _settings(config, reference)) for reference in prepared.tasks]
    return [(reference, task) for reference, task in tasks if isinstance(task, QuestionAnsweringTask)]


def classification(config: RunConfig, task: TaskReference) -> ClassificationTask:
    """How a prepared classification task is to be scored."""
    settings = _settings(config, task)
    assert isinstance(settings, ClassificationTask), "prepare makes of each task what it is"
    return settings


def _settings(config: RunConfig, task: TaskReference) -> ClassificationTask | QuestionAnsweringTask:
    for settings in config.work.evaluation.tasks:
        if settings.name == task.name:
            return settings
    raise RetryError(
        f"the task {task.name} was prepared but is not in the run configuration: run prepare again.",
        reason="NotPrepared",
    )


def generated(config: RunConfig, prepared: Prepared) -> list[tuple[TaskReference, QuestionAnsweringTask | Samples]]:
    """All that models generate answers for: question answering tasks and samples."""
    samples = [] if prepared.samples is None else [(prepared.samples, config.work.evaluation.samples)]
    return [*question_answering(config, prepared), *samples]


def teacher_evaluations_missing(store: ObjectStore, config: RunConfig, prepared: Prepared) -> int:
    """Results that only the teacher's own process can make and that are not stored yet.

    Those are the answers that it generates. Everything else that is said of the teacher is computed from its signals.
    """
    if not prepared.compares_with_teacher:
        return 0
    teacher = teacher_identity(prepared)
    return sum(
        not store.exists(answers_key(teacher, reference, task)) for reference, task in generated(config, prepared)
    )


def read_result(store: ObjectStore, key: str, kind: type[Result]) -> Result | None:
    """A stored result; None where there is none.

    Raises
    ------
    RetryError
        The object isn't such a result. It is removed, so that the next attempt makes it again.
    """
    try:
        return kind.model_validate_json(store.get(key))
    except ObjectMissing:
        return None
    except ValidationError as error:
        store.delete(key)
        raise RetryError(
            f"the stored result {store.uri}/{key} can't be read and was removed: run again to make it anew.",
            reason="ResultCorrupt",
        ) from error


def write_result(store: ObjectStore, key: str, result: Result) -> Result:
    """Stores a result unless there is one; returns the one that counts."""
    if store.put_if_absent(key, result.model_dump_json(indent=1).encode()):
        return result
    stored = read_result(store, key, type(result))
    return result if stored is None else stored


def _alone(model: ModelIdentity) -> dict[str, str | None]:
    return {"digest": model.digest, "dtype": model.dtype}


def _key(
    kind: Literal["loaded", "parameters", "heldOut", "labels", "answers"],
    version: int,
    **made_of: dict[str, str | None] | str | int | None,
) -> str:
    return layout.evaluation_key(digest_of({"kind": kind, "version": version, **made_of}))
