"""The model card: what a distilled model is made of, how it was made, and how good it is."""

from collections.abc import Mapping

from huggingface_hub import ModelCardData

from distill_runtime.contract.report import Scores, Subject
from distill_runtime.contract.run import RunConfig
from distill_runtime.contract.sections import ActiveNeurons, InfluentialLayers, TeacherLayers
from distill_runtime.evaluation.assembly import objective_in_words, optimizer_in_words, trained_in_words
from distill_runtime.prepared import ModelPin, Prepared

ADAPTER = (
    "The adapter is merged into these weights. By itself it lies in `adapter`, in peft's format, for the student "
    "before training."
)
SUBJECTS: dict[Subject, str] = {
    "teacher": "teacher",
    "studentBefore": "student before",
    "studentAfter": "student after",
}
"""Columns of the table of results, in their order."""


def model_card(
    config: RunConfig,
    prepared: Prepared,
    *,
    steps: int,
    exported_step: int,
    held_out_loss: float | None = None,
    scores: Mapping[Subject, Scores] | None = None,
) -> str:
    """README.md of the exported model: front matter of the Hugging Face Hub, and Markdown.

    Parameters
    ----------
    steps, exported_step
        Optimizer steps that were made, and the step whose weights these are.
    held_out_loss
        The objective on the held-out data with these weights, in nats per target.
    scores
        Results, where evaluation has run. Without them the card says where they will be.
    """
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["distillation", "distill-operator"],
        base_model=_base_model(config, prepared),
    )
    sections = [
        f"---\n{data.to_yaml()}\n---",
        f"# {config.name}",
        f"A language model distilled from {_named(prepared.teacher)} with distill-operator.",
        _origin(config, prepared),
        _training(config, prepared, steps, exported_step, held_out_loss),
        "## Results\n\n" + (_results(scores) if scores else "In `report.json` and `report.html` of the job."),
        *([] if config.work.student.adapter is None else [ADAPTER]),
        "## Use\n\n```python\nfrom transformers import pipeline\n\n"
        'generate = pipeline("text-generation", model="PATH_OF_THIS_FOLDER")\n```',
    ]
    return "\n\n".join(sections) + "\n"


def _base_model(config: RunConfig, prepared: Prepared) -> str | None:
    """The model whose weights training started from, where the Hub has it."""
    student = config.work.student
    if student.initialise is not None and student.initialise.from_config is not None:
        return None
    source = prepared.teacher.uri if student.model is None else prepared.student.uri
    if not source.startswith("hf://"):
        return None
    return "/".join(source.removeprefix("hf://").partition("@")[0].split("/")[:2])


def _named(pin: ModelPin) -> str:
    return f"`{pin.uri}` (digest `{pin.digest[:16]}`)"


def _origin(config: RunConfig, prepared: Prepared) -> str:
    initialise = config.work.student.initialise
    if initialise is None:
        student = _named(prepared.student)
    elif initialise.from_teacher is not None:
        student = f"{_kept(initialise.from_teacher)} of the teacher{_narrowed(initialise.from_teacher)}"
    else:
        assert initialise.from_config is not None
        student = f"random weights (seed {initialise.from_config.seed}) for `{initialise.from_config.config}`"
    train = prepared.train
    return "\n".join([
        "## Made of\n",
        "| | |",
        "| --- | --- |",
        f"| teacher | {_named(prepared.teacher)}, run in {prepared.teacher_dtype} |",
        f"| student before training | {student} |",
        f"| training data | {train.sequences:,} sequences, {train.targets:,} targets, digest `{train.data_digest}` |",
    ])  # fmt: skip


def _kept(wanted: TeacherLayers) -> str:
    if wanted.layers is not None:
        return f"layers {_listed(wanted.layers)}"
    if wanted.by_influence is not None:
        return f"the {wanted.by_influence.keep} layers of most influence {_measured(wanted.by_influence)}"
    return "all layers" if wanted.every is None else f"the first of every {wanted.every} layers"


def _narrowed(wanted: TeacherLayers) -> str:
    if wanted.neurons is None:
        return ""
    return f", each with its {wanted.neurons.keep} feed-forward neurons of most importance {_measured(wanted.neurons)}"


def _measured(by: InfluentialLayers | ActiveNeurons) -> str:
    return f"(measured over {by.sequences} sequences)"


def _listed(layers: list[int]) -> str:
    return ", ".join(map(str, layers))


def _training(config: RunConfig, prepared: Prepared, steps: int, exported: int, held_out_loss: float | None) -> str:
    training = config.work.training
    rows = [
        ("objective", objective_in_words(config.work.objective)),
        ("trained", trained_in_words(config.work.student)),
        ("steps", f"{steps:,} of {prepared.total_steps:,}; these are the weights of step {exported:,}"),
        ("global batch", f"{training.global_batch:,} sequences"),
        ("optimizer", f"{optimizer_in_words(training.optimizer)}, learning rate {training.optimizer.learning_rate:g}"),
        ("precision", prepared.training_precision),
    ]
    if held_out_loss is not None:
        rows.append(("held-out objective", f"{held_out_loss:.4f} nats per target"))
    rows.append(("training digest", f"`{prepared.training_digest}`"))
    return "\n".join(["## Trained\n", "| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def _results(scores: Mapping[Subject, Scores]) -> str:
    """A table: one row a metric, one column a model."""
    present: list[Subject] = [subject for subject in SUBJECTS if subject in scores]
    rows: dict[str, dict[Subject, str]] = {}
    for subject in present:
        for name, value in _values(scores[subject]).items():
            rows.setdefault(name, {})[subject] = value
    lines = ["| | " + " | ".join(SUBJECTS[subject] for subject in present) + " |", "| --- |" + " ---: |" * len(present)]
    for name, values in rows.items():
        lines.append(f"| {name} | " + " | ".join(values.get(subject, "–") for subject in present) + " |")
    return "\n".join(lines)


def _values(scores: Scores) -> dict[str, str]:
    values: dict[str, float | None] = {
        "KL to the teacher (nats per target)": scores.kl_to_teacher,
        "top-1 agreement with the teacher": scores.top1_agreement,
        "perplexity": scores.perplexity,
        "expected calibration error": scores.expected_calibration_error,
    }
    for name, task in scores.tasks.items():
        values |= {
            f"{name}: accuracy": task.accuracy,
            f"{name}: macro F1": task.macro_f1,
            f"{name}: expected calibration error": task.expected_calibration_error,
            f"{name}: exact match": task.exact_match,
            f"{name}: token F1": task.token_f1,
        }
    for name, found in scores.harness.items():
        if found.part_of is None:
            values |= {f"{name}: {metric} (lm-evaluation-harness)": value for metric, value in found.metrics.items()}
    return {name: f"{value:.4f}" for name, value in values.items() if value is not None}
