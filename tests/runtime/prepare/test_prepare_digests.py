"""What makes a plan, a signal and a training another one, and what doesn't."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from distill_runtime.contract.facts import PrepareFacts
from distill_runtime.data.examples import TaskExamples
from distill_runtime.data.plan import Plan
from distill_runtime.errors import UserError
from distill_runtime.prepared import Prepared
from distill_runtime.store.open import open_store
from tests.fixtures.models import CHATML, save_tiny_model
from tests.runtime.prepare.conftest import ROWS
from tests.runtime.prepare.preparing import Job
from tests.unit.data.files import write_json_lines

LONG = 10
"""Rows of more than 26 tokens."""


def addresses(prepared: Prepared) -> list[Any]:
    """Where plans and signals are."""
    plans = [prepared.train, prepared.evaluation, *(task.plan for task in prepared.tasks)]
    return [prepared.train_signal.digest, *(plan.key if plan else None for plan in plans)]


@pytest.mark.parametrize(
    ("changes", "same_training"),
    [
        ({"training": {"seed": 7}}, False),
        ({"training": {"globalBatch": 4}}, False),
        ({"training": {"optimizer": {"learningRate": 0.5}}}, False),
        ({"objective": {"crossEntropyWeight": 0.5}}, False),
        ({"output": {"select": "best"}}, False),
        ({"student": {"adapter": {"rank": 4}}}, False),
        ({"student": {"freeze": ["embeddings"]}}, False),
        ({"training": {"packing": False}}, True),
        ({"training": {"microBatch": 1}}, True),
        ({"training": {"zeroStage": 3}}, True),
        ({"training": {"deepspeed": {"zero_optimization": {"offload_optimizer": {}}}}}, True),
        ({"training": {"optimizer": {"kind": "torch", "torch": {"name": "RMSprop"}}}}, False),
        ({"training": {"gradientCheckpointing": True, "attention": "eager"}}, True),
        ({"training": {"checkpointEverySteps": 1, "evaluateEverySteps": 5}}, True),
        ({"training": {"epochs": 1}}, True),
        ({"objective": {"chunkTokens": 7}}, True),
        ({"student": {"workers": 4}, "teacher": {"replicas": 3}}, True),
        ({"signal": {"mode": "offline"}}, True),
    ],
)
def test_the_trainings_settings_keep_plans_and_signals(job: Job, changes: dict[str, Any], same_training: bool) -> None:
    before, _ = job.prepare_here()
    after, facts = job.changed(changes).prepare_here()
    assert addresses(after) == addresses(before)
    assert facts["reusedPlan"] is True
    assert (after.training_digest == before.training_digest) is same_training
    assert (after.fingerprint == before.fingerprint) is same_training


def test_another_student_keeps_plans_and_signals(job: Job) -> None:
    before, _ = job.prepare_here()
    save_tiny_model(job.folder / "another", layers=1, seed=3)
    after, _ = job.changed({"student": {"model": f"file://{job.folder}/another"}}).prepare_here()
    assert addresses(after) == addresses(before)
    assert after.student.digest != before.student.digest
    assert after.training_digest != before.training_digest


def test_another_job_with_the_same_data_and_teacher_keeps_plans_and_signals(job: Job) -> None:
    before, _ = job.prepare_here()
    after, facts = job.changed({}, uid="uid-2").prepare_here()
    assert after == before
    assert facts["reusedPlan"] is True


def test_another_template_makes_other_plans(job: Job) -> None:
    before, _ = job.prepare_here()
    template = CHATML.replace("assistant\n' }}{% endif %}", "assistant\n' }}{% endif %}{# the same #}")
    after, facts = job.changed({"data": {"chatTemplate": template}}).prepare_here()
    assert set(addresses(after)[1:]) & set(addresses(before)[1:]) == {None}  # Questions have no plan.
    assert facts["reusedPlan"] is False
    # The text is the same, so the sequences are, and so are their signals.
    assert after.train.data_digest == before.train.data_digest
    assert after.train_signal.digest == before.train_signal.digest
    assert after.training_digest == before.training_digest


def test_what_only_the_teacher_is_told_keeps_the_students_sequences(job: Job) -> None:
    before, _ = job.prepare_here()
    told, facts = job.changed({"data": {"teacherPrompt": "be lazy."}}).prepare_here()
    assert told.train_signal.digest == before.train_signal.digest
    assert (told.train.tokens, told.train.targets) == (before.train.tokens, before.train.targets)
    assert told.train.data_digest != before.train.data_digest
    assert told.training_digest != before.training_digest
    found = PrepareFacts.read(facts)
    assert found.signal_shards_missing == found.signal_shards + 1  # The head counts as one.
    store = open_store(job.config.work.storage)
    plans = [Plan(store, prepared.train) for prepared in (before, told)]
    for number in range(len(plans[0])):
        alone, pair = (plan.sequence(number) for plan in plans)
        assert pair.ids.tolist() == alone.ids.tolist()
        assert pair.targets.tolist() == alone.targets.tolist()
        assert pair.for_teacher.ids[-pair.length :].tolist() == alone.ids.tolist()
    # Tasks are asked without it.
    assert [task.digest for task in told.tasks] == [task.digest for task in before.tasks]


def test_a_context_that_is_empty_changes_no_digest(job: Job) -> None:
    before, _ = job.prepare_here()
    write_json_lines(job.folder / "train.jsonl", [{**row, "teacher_context": ""} for row in ROWS])
    after, _ = job.prepare_here()
    assert after.train.key != before.train.key  # Other files.
    assert after.train.data_digest == before.train.data_digest
    assert after.training_digest == before.training_digest
    shards = [
        [shard.digest for shard in Plan(open_store(job.config.work.storage), prepared.train).manifest.shards]
        for prepared in (before, after)
    ]
    assert shards[0] == shards[1]


def test_a_row_may_be_longer_for_the_teacher_than_for_the_student(job: Job) -> None:
    told = job.changed({"data": {"teacherPrompt": "be lazy. " * 20, "maxLength": 40}, "evaluation": None})
    with pytest.raises(UserError, match=r"all 20 rows .* data\.teacherMaxLength 40"):
        told.prepare_here()
    longer, facts = told.changed({"data": {"teacherMaxLength": 200}}).prepare_here()
    assert (facts["droppedRows"], longer.train.sequences) == (0, 20)


def test_a_reading_that_is_longer_than_the_teachers_context_is_refused_by_its_field(job: Job) -> None:
    told = job.changed({"data": {"teacherPrompt": "be lazy. " * 300, "teacherMaxLength": 4000}})
    with pytest.raises(UserError, match=r"the teacher .* reads at most 512: set data\.teacherMaxLength to 512"):
        told.prepare_here()


MORE = [{"prompt": f"was it {number}?", "completion": "the fox."} for number in range(7)]


def weighted(job: Job, *weights: float) -> Job:
    """The job with its data and seven rows more as two sources."""
    more = write_json_lines(job.folder / "more.jsonl", MORE)
    sources = [{"uri": uri, "weight": w} for uri, w in zip([job.work["data"]["train"], more], weights, strict=True)]
    return job.changed({"data": {"train": None, "sources": sources}})


def test_sources_are_read_by_their_weights_and_counted_apart(job: Job) -> None:
    prepared, facts = weighted(job, 0.5, 2).prepare_here()
    assert [
        source.model_dump(include={"rows", "sequences", "weight", "epoch_sequences"}) for source in prepared.sources
    ] == [
        {"rows": 20, "sequences": 20, "weight": 0.5, "epoch_sequences": 10},
        {"rows": 7, "sequences": 7, "weight": 2.0, "epoch_sequences": 14},
    ]
    assert sum(source.tokens for source in prepared.sources) == prepared.train.tokens
    assert sum(source.targets for source in prepared.sources) == prepared.train.targets
    assert (facts["rows"], facts["sequences"]) == (27, 27)
    assert prepared.total_steps == 3  # 24 sequences an epoch, 8 a step.


def test_weights_change_the_training_and_neither_plan_nor_signals(job: Job) -> None:
    one, _ = weighted(job, 1, 1).prepare_here()
    two, facts = weighted(job, 1, 3).prepare_here()
    assert addresses(one) == addresses(two)
    assert facts["reusedPlan"] is True
    assert one.training_digest != two.training_digest
    assert one.fingerprint != two.fingerprint


def test_rows_of_a_source_are_named_by_their_file_and_count_towards_one_limit(job: Job) -> None:
    write_json_lines(job.folder / "train.jsonl", [*ROWS, "{broken"])
    two = weighted(job, 1, 1)
    write_json_lines(job.folder / "more.jsonl", [*MORE, "{broken"])
    with pytest.raises(UserError, match=r"train.jsonl:21: .* \(2 bad rows so far, data.maxBadRows allows 1\)"):
        two.changed({"data": {"maxBadRows": 1}}).prepare_here()
    prepared, facts = two.changed({"data": {"maxBadRows": 2}}).prepare_here()
    assert [source.bad_rows for source in prepared.sources] == [1, 1]
    assert facts["badRows"] == 2


def test_a_source_that_gives_nothing_is_refused_by_its_field(job: Job) -> None:
    with pytest.raises(UserError, match=r"data\.sources\[1\]\.weight 0\.01 of 7 sequences"):
        weighted(job, 1, 0.01).prepare_here()
    twice = [{"uri": job.work["data"]["train"]}] * 2
    with pytest.raises(UserError, match=r"data\.sources\[1\]: .*train\.jsonl belongs to data\.sources\[0\] too"):
        job.changed({"data": {"train": None, "sources": twice}}).prepare_here()
    write_json_lines(job.folder / "long.jsonl", [{"prompt": "is it? " * 200, "completion": "no."}])
    sources = [{"uri": job.work["data"]["train"]}, {"uri": f"file://{job.folder}/long.jsonl"}]
    with pytest.raises(UserError, match=r"data\.sources\[1\]: all 1 rows"):
        job.changed({"data": {"train": None, "sources": sources}}).prepare_here()


@pytest.mark.parametrize("file", ["model.safetensors", "chat_template.jinja"])
def test_another_file_of_the_teacher_makes_other_signals(job: Job, models: Path, file: str) -> None:
    before, _ = job.prepare_here()
    shutil.copytree(models / "teacher", job.folder / "teacher")
    if file == "model.safetensors":
        save_tiny_model(job.folder / "other", seed=9, vocabulary=400)
        shutil.copy(job.folder / "other" / file, job.folder / "teacher" / file)
    else:
        (job.folder / "teacher" / file).write_text(CHATML + "{# changed #}")
    after, _ = job.changed({"teacher": {"model": f"file://{job.folder}/teacher"}}).prepare_here()
    assert after.train_signal.digest != before.train_signal.digest
    assert after.training_digest != before.training_digest
    assert (after.train.key == before.train.key) is (file == "model.safetensors")


@pytest.mark.parametrize(
    "changes", [{"teacher": {"dtype": "bfloat16"}}, {"signal": {"dtype": "float32"}}], ids=["teacher", "signal"]
)
def test_another_precision_makes_other_signals_of_the_same_plans(job: Job, changes: dict[str, Any]) -> None:
    before, _ = job.prepare_here()
    after, _ = job.changed(changes).prepare_here()
    assert after.train_signal.digest != before.train_signal.digest
    assert addresses(after)[1:] == addresses(before)[1:]


def test_other_data_is_noticed_though_its_name_is_the_same(job: Job) -> None:
    before, _ = job.prepare_here()
    write_json_lines(job.folder / "train.jsonl", ROWS[:10])
    after, facts = job.prepare_here()
    assert (before.train.sequences, after.train.sequences) == (20, 10)
    assert after.evaluation == before.evaluation
    assert facts["reusedPlan"] is False


def test_a_lost_plan_is_made_again(job: Job) -> None:
    before, _ = job.prepare_here()
    open_store(job.config.work.storage).delete(f"{before.train.key}/manifest.json")
    after, facts = job.prepare_here()
    assert after == before
    assert facts["reusedPlan"] is False


def test_a_stricter_limit_of_bad_rows_holds_for_a_plan_that_exists(job: Job) -> None:
    write_json_lines(job.folder / "train.jsonl", [*ROWS, "{broken"])
    _, facts = job.changed({"data": {"maxBadRows": 1}}).prepare_here()
    assert facts["badRows"] == 1
    with pytest.raises(UserError, match=r"train.jsonl:21: broken JSON"):
        job.prepare_here()


def test_dropped_and_truncated_rows_are_told(job: Job) -> None:
    _, dropped = job.changed({"data": {"maxLength": 26}, "evaluation": None}).prepare_here()
    _, cut = job.changed({"data": {"maxLength": 26, "tooLong": "truncate"}, "evaluation": None}).prepare_here()
    assert (dropped["droppedRows"], dropped["truncatedRows"], dropped["sequences"]) == (LONG, 0, 20 - LONG)
    assert (cut["droppedRows"], cut["truncatedRows"], cut["sequences"]) == (0, LONG, 20)


def test_tasks_are_stored_as_examples_and_as_a_plan_of_labels(job: Job) -> None:
    prepared, _ = job.prepare_here()
    store = open_store(job.config.work.storage)
    intents, questions = prepared.tasks
    examples = TaskExamples.model_validate_json(store.get(intents.examples_key))
    assert examples.labels == ["card", "transfer"]
    assert intents.plan is not None
    assert len(Plan(store, intents.plan)) == len(examples.prompts) * 2
    assert questions.plan is None
    assert TaskExamples.model_validate_json(store.get(questions.examples_key)).answers == [["four", "4"]]


def test_a_task_with_other_settings_has_another_digest(job: Job) -> None:
    before, _ = job.prepare_here()
    (task, other) = job.work["evaluation"]["tasks"]
    renamed = {**task, "name": "renamed"}
    after, _ = job.changed({"evaluation": {"tasks": [renamed, {**other, "maxNewTokens": 5}]}}).prepare_here()
    assert after.tasks[0].digest == before.tasks[0].digest  # A name changes no score.
    assert after.tasks[1].digest != before.tasks[1].digest
    assert after.training_digest == before.training_digest


def test_arguments_that_torch_refuses_are_told_before_a_gpu_is_asked_for(job: Job) -> None:
    optimizer = {"kind": "torch", "torch": {"name": "SGD", "arguments": {"nesterov": True}}}
    with pytest.raises(UserError, match=r"optimizer\.torch: torch refuses the arguments of SGD: Nesterov momentum"):
        job.changed({"training": {"optimizer": optimizer}}).prepare_here()


@pytest.mark.parametrize(
    ("student", "sentence"),
    [
        (
            {"adapter": {"targetModules": ["q_proj", "query"]}},
            r"student\.adapter\.targetModules: the student has no linear layer query; it has down_proj, .* v_proj\.",
        ),
        ({"adapter": {"targetModules": ["mlp"]}}, "the student has no linear layer mlp"),
        ({"adapter": {"targetModules": ["lm_head"]}}, "lm_head is the output head or the input embedding"),
        (
            {"freeze": ["outputHead", "model.layer.*"]},
            r"student\.freeze: no weight of the student matches model\.layer\.\*",
        ),
        ({"freeze": ["*"]}, "nothing is left to train"),
        ({"adapter": {"targetModules": ["embed_tokens"]}}, "embed_tokens is the output head or the input embedding"),
    ],
)
def test_parts_that_the_student_does_not_have_are_refused(job: Job, student: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        job.changed({"student": student}).prepare_here()
    made = {"model": None, "initialise": {"fromTeacher": {"every": 2}}}
    with pytest.raises(UserError, match=sentence):
        job.changed({"student": {**student, **made}}).prepare_here()


def test_how_labels_are_compared_changes_nothing_that_is_prepared(job: Job) -> None:
    before, _ = job.prepare_here()
    (task, other) = job.work["evaluation"]["tasks"]
    changed = {"evaluation": {"tasks": [{**task, "normalisation": "bytes"}, other]}}
    after, facts = job.changed(changed).prepare_here()
    assert after == before
    assert facts["reusedPlan"] is True


def test_samples_are_the_first_held_out_rows_and_change_nothing_else(job: Job) -> None:
    before, _ = job.prepare_here()
    sampled = job.changed({"evaluation": {"samples": {"count": 2, "maxNewTokens": 9}}})
    after, facts = sampled.prepare_here()
    assert before.samples is None
    assert after.samples is not None
    assert after.model_copy(update={"samples": None, "fingerprint": before.fingerprint}) == before
    assert facts["teacherEvaluationsMissing"] == 2  # Those of the questions, and the samples.
    store = open_store(job.config.work.storage)
    examples = TaskExamples.model_validate_json(store.get(after.samples.examples_key))
    assert [prompt.count("was it") for prompt in examples.prompts] == [1, 1]
    assert "was it 0?" in examples.prompts[0]
    assert examples.answers == [["the fox."]] * 2
    assert examples.max_new_tokens == 9
    store.delete(after.samples.examples_key)
    again, _ = sampled.prepare_here()
    assert again == after
    assert store.exists(after.samples.examples_key)


def test_more_samples_than_held_out_rows_are_all_of_them(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    prepared, _ = job.changed({"evaluation": {"samples": {"count": 50}}}).prepare_here()
    assert prepared.samples is not None
    examples = open_store(job.config.work.storage).get(prepared.samples.examples_key)
    assert len(TaskExamples.model_validate_json(examples).prompts) == 6
    assert "evaluation.samples.count is 50, but data.evaluation has 6" in caplog.text


def test_samples_that_no_model_could_answer_are_refused(job: Job) -> None:
    with pytest.raises(UserError, match=r"evaluation.samples has \d+ tokens.*lower evaluation.samples.maxNewTokens"):
        job.changed({"evaluation": {"samples": {"count": 1, "maxNewTokens": 8000}}}).prepare_here()


def test_a_student_of_the_teachers_layers_is_made_once(job: Job) -> None:
    job = job.changed({"student": {"model": None, "initialise": {"fromTeacher": {"every": 2}}}})
    before, _ = job.prepare_here()
    assert before.student.uri.startswith("store://models/")
    made = {key for key in job.objects if key.startswith("models/")}
    assert any(key.endswith("/config.json") for key in made)
    after, _ = job.changed({"training": {"seed": 3}}).prepare_here()
    assert after.student == before.student
    assert {key for key in job.objects if key.startswith("models/")} == made
    other, _ = job.changed({"student": {"initialise": {"fromTeacher": {"every": 3}}}}).prepare_here()
    assert other.student.uri != before.student.uri


def test_a_student_of_the_layers_of_most_influence_depends_on_the_training_data(job: Job) -> None:
    initialise = {"fromTeacher": {"byInfluence": {"keep": 2, "sequences": 5}}}
    job = job.changed({"student": {"model": None, "initialise": initialise}})
    before, _ = job.prepare_here()
    again, _ = job.changed({"training": {"seed": 3}}).prepare_here()
    assert again.student == before.student
    store = open_store(job.config.work.storage)
    made = json.loads(store.get(f"{before.student.uri.removeprefix('store://')}/config.json"))
    assert made["num_hidden_layers"] == 2
    more, _ = job.changed(
        {"student": {"initialise": {"fromTeacher": {"byInfluence": {"sequences": 6}}}}}
    ).prepare_here()
    assert more.student.uri != before.student.uri
    write_json_lines(job.folder / "train.jsonl", ROWS[:-1])
    other, _ = job.prepare_here()
    assert other.student.uri != before.student.uri
    with pytest.raises(UserError, match=r"byInfluence\.keep: 9 layers are to be kept of a teacher that has 4"):
        job.changed({"student": {"initialise": {"fromTeacher": {"byInfluence": {"keep": 9}}}}}).prepare_here()


def test_a_student_of_narrower_layers_depends_on_the_training_data(job: Job) -> None:
    initialise = {"fromTeacher": {"every": 2, "neurons": {"keep": 96, "sequences": 5}}}
    job = job.changed({"student": {"model": None, "initialise": initialise}})
    before, _ = job.prepare_here()
    store = open_store(job.config.work.storage)
    made = json.loads(store.get(f"{before.student.uri.removeprefix('store://')}/config.json"))
    assert (made["num_hidden_layers"], made["intermediate_size"]) == (2, 96)
    write_json_lines(job.folder / "train.jsonl", ROWS[:-1])
    other, _ = job.prepare_here()
    assert other.student.uri != before.student.uri
    both = {"fromTeacher": {"every": None, "byInfluence": {"keep": 3}, "neurons": {"keep": 64}}}
    third, _ = job.changed({"student": {"initialise": both}}).prepare_here()
    made = json.loads(store.get(f"{third.student.uri.removeprefix('store://')}/config.json"))
    assert (made["num_hidden_layers"], made["intermediate_size"]) == (3, 64)


def test_the_pin_of_a_student_that_was_made_holds_for_whoever_loads_it(job: Job) -> None:
    from distill_runtime.models import resolve_pin

    job = job.changed({"student": {"model": None, "initialise": {"fromTeacher": {"layers": [0, 3]}}}})
    first, _ = job.prepare_here()
    again, _ = job.changed({"training": {"seed": 3}}).prepare_here()
    store = open_store(job.config.work.storage)
    for prepared in (first, again):
        folder = resolve_pin(prepared.student, job.config.work.storage, cache=job.folder / "far", store=store)
        assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 2


def test_a_student_with_random_weights_depends_on_its_configuration_and_seed(job: Job, models: Path) -> None:
    def student(seed: int) -> Job:
        config = {"config": f"file://{models}/student/config.json", "seed": seed}
        return job.changed({"student": {"model": None, "initialise": {"fromConfig": config}}})

    one, _ = student(0).prepare_here()
    two, _ = student(1).prepare_here()
    assert one.student.digest != two.student.digest
    assert one.student.uri != two.student.uri
