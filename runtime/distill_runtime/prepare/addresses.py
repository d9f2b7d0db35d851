"""Digests of inputs: what names plans, initial students and trainings, and when nothing need be done again."""

from collections.abc import Iterable
from collections.abc import Sequence as Many
from pathlib import Path
from typing import Any

from distill_runtime.contract.run import Work
from distill_runtime.contract.sections import ClassificationTask, Data, QuestionAnsweringTask, Samples, Signal
from distill_runtime.data.files import DataFile
from distill_runtime.data.plan import PLAN_VERSION
from distill_runtime.data.samples import SAMPLES_VERSION
from distill_runtime.data.tasks import CHOSEN_LATER, TASKS_VERSION
from distill_runtime.digests import digest_of, digest_of_file
from distill_runtime.prepare.harness import definitions_digest
from distill_runtime.prepare.inputs import DataSet, Inputs
from distill_runtime.prepared import ModelPin, PlanReference, ResolvedPrecision, SourceShare, StoredSignal

PREPARE_VERSION = 3
"""Part of the fingerprint: raised when the same inputs would give another `prepared.json`."""
INITIAL_STUDENT_VERSION = 1
"""Part of an initial student's address: raised when the same teacher would give another one."""
TRAINING_VERSION = 1
"""Part of a training's digest: raised when the same inputs would give other weights."""
TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "additional_chat_templates/*",
    "vocab*",
    "merges*",
    "*.model",
    "*.tiktoken",
    "tokenization*.py",
)
"""Files of a model's folder that say how text becomes ids."""
_SIZES = {
    "hidden": (),
    "topk": ("k",),
    "sampled": ("samples",),
    "auto": ("k", "samples", "bandwidth", "reuses"),
}
"""What says how much a signal holds, by its kind."""


def tokenizer_digest(folder: Path) -> str:
    """Digest of the names and contents of a tokenizer's files, chat template included."""
    files = {path for pattern in TOKENIZER_FILES for path in folder.glob(pattern) if path.is_file()}
    return digest_of({path.relative_to(folder).as_posix(): digest_of_file(path) for path in files})


def data_plan_digest(parts: Many[DataSet], data: Data, signal: Signal, tokenizer: str) -> str:
    """Digest of all that makes a plan of training or held-out data; `tokenizer` is the tokenizer's digest."""
    return digest_of(
        {
            "version": PLAN_VERSION,
            "files": [file.digest for part in parts for file in part.files],
            # Where one source ends and the next begins is part of the plan; how often each is read is not.
            "files_of_sources": [len(part.files) for part in parts] if len(parts) > 1 else None,
            "tokenizer": tokenizer,
            "shard_sequences": signal.shard_sequences,
            **data.model_dump(exclude={"train", "sources", "evaluation", "max_bad_rows"}),
        }
    )


def task_plan_digest(
    task: ClassificationTask | QuestionAnsweringTask,
    files: Iterable[DataFile],
    data: Data,
    signal: Signal,
    tokenizer: str,
) -> str:
    """Digest of all that makes a task's examples and plan."""
    return digest_of(
        {
            "version": [PLAN_VERSION, TASKS_VERSION],
            "files": [file.digest for file in files],
            "tokenizer": tokenizer,
            "shard_sequences": signal.shard_sequences,
            "task": task.model_dump(exclude={"data", "engine", *CHOSEN_LATER}),
            **data.model_dump(include={"max_length", "chat_template", "prompt_format", "system_prompt"}),
        }
    )


def samples_digest(samples: Samples, evaluation: PlanReference, data: Data, tokenizer: str) -> str:
    """Digest of all that makes the samples of a plan of held-out data, which the engine that answers them is not."""
    return digest_of(
        {
            "version": [PLAN_VERSION, SAMPLES_VERSION],
            "plan": evaluation.data_digest,
            "tokenizer": tokenizer,
            "samples": samples.model_dump(exclude={"engine"}),
            **data.model_dump(include={"chat_template", "prompt_format"}),
        }
    )


def initial_student_digest(work: Work, inputs: Inputs, train: PlanReference) -> str:
    """Digest of all that makes the initial student: the teacher's files, how it is made of them, and the training data
    where its layers or neurons are chosen by that."""
    initialise = work.student.initialise
    assert initialise is not None
    made = initialise.model_dump()
    if initialise.from_config is not None:
        assert inputs.student_config is not None
        made["from_config"]["config"] = inputs.student_config.pin.digest
    layers = initialise.from_teacher
    chosen_by_data = layers is not None and not (layers.by_influence is None and layers.neurons is None)
    return digest_of(
        {
            "version": INITIAL_STUDENT_VERSION,
            "teacher": inputs.teacher.pin.digest,
            "made": made,
            "data": train.data_digest if chosen_by_data else None,
        }
    )


def fingerprint(work: Work, inputs: Inputs) -> str:
    """Digest of all inputs of `prepare`. Workers, micro-batch, packing and the like are not among them.

    Which precision `auto` means on processors is not an input either: it is chosen once, on the machine where the job
    was first prepared, and a job that goes on elsewhere keeps its signals and its training.
    """
    student = inputs.student or inputs.student_config
    return digest_of(
        {
            "version": [PREPARE_VERSION, PLAN_VERSION, TASKS_VERSION, INITIAL_STUDENT_VERSION, TRAINING_VERSION],
            "teacher": inputs.teacher.pin.model_dump(),
            "teacher_options": work.teacher.model_dump(include={"engine", "dtype", "trust_remote_code"}),
            "gpus": [work.teacher.gpus > 0, work.student.gpus_per_worker > 0],
            "student": student.pin.model_dump() if student else None,
            "student_options": work.student.model_dump(include={"initialise", "trust_remote_code"}),
            "train": _files(file for part in inputs.train for file in part.files),
            "evaluation": _files(inputs.evaluation),
            "data": work.data.model_dump(exclude={"train", "evaluation"}),  # With the weights of sources.
            "tasks": [
                {**task.model_dump(exclude={"data", *CHOSEN_LATER}), "files": _files(inputs.tasks[task.name])}
                for task in work.evaluation.tasks
            ],
            "signal": work.signal.model_dump(include={"kind", "dtype", "shard_sequences", *_SIZES[work.signal.kind]}),
            # Without them the fingerprint stays that of versions that had none.
            **({"samples": work.evaluation.samples.model_dump()} if work.evaluation.samples.count else {}),
            **({"harness": _harness(work, inputs)} if work.evaluation.harness.tasks else {}),
            "training": _training(work),
            "compared": work.compares_with_teacher,
            "precision": [work.training.precision, work.training.zero_stage == 0],
        }
    )


def _harness(work: Work, inputs: Inputs) -> dict[str, Any]:
    harness = work.evaluation.harness
    definitions = inputs.definitions and definitions_digest(inputs.definitions, str(harness.include))
    return {"tasks": [task.model_dump() for task in harness.tasks], "definitions": definitions}


def training_digest(
    work: Work,
    *,
    train: PlanReference,
    shard_sizes: list[int],
    sources: Many[SourceShare],
    evaluation: PlanReference | None,
    train_signal: StoredSignal,
    held_out_signal: StoredSignal,
    student: ModelPin,
    precision: ResolvedPrecision,
) -> str:
    """Digest of all that determines the trained weights, whatever the workers, micro-batch, packing and ZeRO stage. The
    signals' digests cover the teacher."""
    return digest_of(
        {
            "version": TRAINING_VERSION,
            "train": train.data_digest,
            "shards": shard_sizes,
            **({"sources": [[source.sequences, source.weight] for source in sources]} if sources else {}),
            "evaluation": evaluation.data_digest if evaluation else None,
            "signals": [train_signal.digest, held_out_signal.digest],
            "student": student.digest,
            "precision": precision,
            **_training(work),
        }
    )


def _training(work: Work) -> dict[str, Any]:
    training = work.training
    watched = work.output.select == "best" or training.stop_after_worse_evaluations > 0
    return {
        "trained": work.student.model_dump(include={"adapter", "freeze"}),
        "objective": work.objective.model_dump(exclude={"chunk_tokens"}),
        "length": [training.steps, (training.epochs or 1.0) if training.steps is None else None],
        "settings": training.model_dump(
            include={"global_batch", "optimizer", "schedule", "seed", "shuffle_window_shards"}
        ),
        "select": work.output.select,
        "stop_after_worse_evaluations": training.stop_after_worse_evaluations,
        # Held-out losses change nothing unless something is decided by them.
        "evaluate_every_steps": training.evaluate_every_steps if watched else None,
    }


def _files(files: Iterable[DataFile]) -> list[list[str]]:
    return [[file.uri, file.digest] for file in files]
