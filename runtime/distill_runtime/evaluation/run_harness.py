"""The child that runs lm-evaluation-harness: `python -m distill_runtime.evaluation.run_harness REQUEST RESULTS BATCHES
FAILURE`.

REQUEST is a `HarnessRequest`; RESULTS takes one `LoadedTask` or `ScoredTask` a line as they come; BATCHES the number of
batches that the model has read, or of tasks that were loaded; FAILURE a `ChildFailure`. See `harness`.
"""

import difflib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_runtime.contract.outcome import ExitCode
from distill_runtime.contract.sections import HarnessTask
from distill_runtime.digests import digest_of, digest_of_bytes
from distill_runtime.errors import RetryError, RunError, UserError
from distill_runtime.evaluation.child import ChildFailure, end_with_parent
from distill_runtime.evaluation.harness import (
    LIBRARY,
    HarnessModel,
    HarnessRequest,
    LoadedTask,
    ScoredTask,
)
from distill_runtime.evaluation.results import HarnessEntry
from distill_runtime.logs import configure_logging
from distill_runtime.process import write_stacks_when_asked
from distill_runtime.progress import write_atomically

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

BOOTSTRAP_ITERATIONS = 1000
"""For the standard errors of metrics that are no means."""
SECONDS_BETWEEN_REPORTS = 0.5
LONGEST_CAUSE = 300
"""Characters of a library's own words in a sentence."""

log = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """Answers the request; returns the exit code."""
    asked, results, batches, failure = (Path(argument).absolute() for argument in arguments)
    configure_logging("evaluate")
    write_stacks_when_asked()
    end_with_parent()
    try:
        request = HarnessRequest.model_validate_json(asked.read_bytes())
        with results.open("w") as file:
            for line in _answers(request, batches):
                file.write(line.model_dump_json() + "\n")
                file.flush()
    except RunError as error:
        said = ChildFailure(reason=error.reason, message=str(error), retry=isinstance(error, RetryError))
        failure.write_text(said.model_dump_json())
        return error.code
    return ExitCode.FINISHED


def _answers(request: HarnessRequest, batches: Path) -> Iterator[LoadedTask | ScoredTask]:
    if request.include is not None:
        os.chdir(request.include)  # Paths in definitions count from there.
    manager = task_manager(request)
    loaded: list[LoadedTask] = []
    for number, task in enumerate(request.tasks, start=1):
        loaded.append(load_task(manager, task))
        if request.model is None:
            write_atomically(batches, str(number))
    for one in loaded:
        if request.digests.get(one.task, one.digest) != one.digest:
            raise UserError(
                f"evaluation.harness: the data of task {one.task} has changed since the job was prepared: start a new "
                "job for it.",
                reason="DataChanged",
            )
    if request.model is None:
        yield from loaded
        return
    model = _model(request.model, batches)
    if request.chat_template and not model.tokenizer.chat_template:
        raise UserError(
            f"evaluation.harness.chatTemplate is true, but {request.model.name} has no chat template.",
            reason="NoChatTemplate",
        )
    for task in request.tasks:
        yield score_task(manager, task, model, chat_template=request.chat_template)


def task_manager(request: HarnessRequest) -> "TaskManager":
    """The tasks that there are: those of the user's folder alone where that has all that are asked for."""
    from lm_eval.tasks import TaskManager

    if request.include is not None:
        # Reading all definitions of the library takes a minute on a busy core.
        own = TaskManager(include_path=request.include, include_defaults=False)
        if all(task.task in own.all_subtasks for task in request.tasks):
            return own
    return TaskManager(include_path=request.include)


def load_task(manager: "TaskManager", task: HarnessTask) -> LoadedTask:
    """Loads a task's data, or that of all tasks of a group, and makes its prompts once.

    Raises
    ------
    UserError
        There is no such task, its data can't be loaded, it has none, no prompts can be made of it, or it runs code that
        the model writes.
    RetryError
        A server that has the data doesn't answer.
    """
    counted: dict[str, Any] = {}
    documents = 0
    for name, one in sorted(_load(manager, task).items()):
        if getattr(one, "UNSAFE_CODE", False):
            raise UserError(
                f"evaluation.harness: task {name} runs code that the model writes, which is not allowed: take it out.",
                reason="BadTask",
            )
        scored = list(islice(one.eval_docs, task.limit))
        if not scored:
            raise UserError(f"evaluation.harness: task {name} has no documents.", reason="BadTask")
        counted[name] = [_digest(scored), _digest(_examples(task, name, one))]
        documents += len(scored)
    return LoadedTask(task=task.task, documents=documents, digest=digest_of(counted))


def _examples(task: HarnessTask, name: str, loaded: Any) -> list[Any]:
    """The documents that solved examples come from, after the prompts of all documents were made as for a model."""
    from jinja2 import TemplateError

    own = loaded.config.num_fewshot
    shown = own if own == 0 or task.num_fewshot is None else task.num_fewshot  # The library's own rule.
    loaded.set_config(key="num_fewshot", value=shown or 0)
    loaded.set_fewshot_seed(seed=0)
    try:
        examples = list(loaded.fewshot_docs() or []) if shown else []
        loaded.build_all_requests(limit=task.limit)
    except (TemplateError, ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError) as error:
        raise UserError(
            f"evaluation.harness: no prompts can be made of the documents of task {name} with {shown or 0} solved "
            f"examples ({_cause(error)}): mend its definition, or set numFewshot.",
            reason="BadTask",
        ) from error
    return examples


def _digest(documents: list[Any]) -> str:
    # What JSON has no form for (pictures) counts by its type alone: its text would differ from process to process.
    text = json.dumps(documents, sort_keys=True, default=lambda value: type(value).__name__)
    return digest_of_bytes(text.encode())


def _load(manager: "TaskManager", task: HarnessTask) -> dict[str, Any]:
    from datasets import config as datasets_config
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from jinja2 import TemplateError

    if task.task not in manager.task_index:
        near = difflib.get_close_matches(task.task, manager.all_tasks, n=1)
        hint = f"did you mean {near[0]}?" if near else "evaluation.harness.include takes definitions of your own."
        raise UserError(
            f"evaluation.harness: {LIBRARY} has no task {task.task}: {hint}",
            reason="BadTask",
        )
    try:
        return dict(manager.load([task.task])["tasks"])
    except (ConnectionError, TimeoutError, HfHubHTTPError) as error:
        offline = isinstance(error, OfflineModeIsEnabled) or isinstance(error.__cause__, OfflineModeIsEnabled)
        if offline or datasets_config.HF_HUB_OFFLINE:
            raise _unloadable(task, error) from error
        raise RetryError(
            f"evaluation.harness: the data of task {task.task} can't be reached ({_cause(error)}): check the network.",
            reason="HubUnreachable",
        ) from error
    except (
        DatasetsError, TemplateError, OSError, ValueError, KeyError, TypeError, AttributeError,
        ImportError, NotImplementedError, AssertionError, RuntimeError,
    ) as error:  # fmt: skip
        raise _unloadable(task, error) from error


def _unloadable(task: HarnessTask, error: Exception) -> UserError:
    return UserError(
        f"evaluation.harness: the data of task {task.task} can't be loaded ({_cause(error)}): mend its definition, or "
        "bring definition and data along in evaluation.harness.include.",
        reason="BadTask",
    )


def _cause(error: Exception) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:LONGEST_CAUSE]}" if words else type(error).__name__


def _model(wanted: HarnessModel, batches: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    library: Any = HFLM  # Its decorator hides from type checkers what it is.

    class Counting(library):
        """Tells how many batches were read."""

        read = 0
        told = 0.0

        def _tell(self) -> None:
            self.read += 1
            if time.monotonic() - self.told > SECONDS_BETWEEN_REPORTS:
                self.told = time.monotonic()
                write_atomically(batches, str(self.read))

        def _model_call(self, *args: Any, **kwargs: Any) -> Any:
            self._tell()
            return super()._model_call(*args, **kwargs)

        def _model_generate(self, *args: Any, **kwargs: Any) -> Any:
            self._tell()
            return super()._model_generate(*args, **kwargs)

    return Counting(
        pretrained=wanted.folder,
        backend="causal",
        dtype=wanted.dtype,
        device="cuda" if wanted.gpus > 0 else "cpu",
        batch_size=wanted.batch_size,
        trust_remote_code=wanted.trust_remote_code,
    )


def score_task(manager: "TaskManager", task: HarnessTask, model: Any, *, chat_template: bool = False) -> ScoredTask:
    """Runs a task, or all tasks of a group, as lm-evaluation-harness does by itself."""
    from lm_eval import evaluator

    run: Any = evaluator.simple_evaluate  # Its decorator hides from type checkers what it takes.
    found = run(
        model=model,
        tasks=[task.task],
        num_fewshot=task.num_fewshot,
        limit=task.limit,
        bootstrap_iters=BOOTSTRAP_ITERATIONS,
        log_samples=False,
        apply_chat_template=chat_template,
        fewshot_as_multiturn=chat_template,
        task_manager=manager,
    )
    return ScoredTask(task=task.task, entries=entries_of(task.task, found))


def entries_of(asked: str, found: dict[str, Any]) -> list[HarnessEntry]:
    """What `simple_evaluate` found, by task: what was asked for comes first, then its parts. Where that is a group
    without an aggregate, its tasks count as asked for themselves."""
    scored = {**found.get("groups", {}), **found["results"]}
    names = sorted(scored, key=lambda name: (name != asked, name))
    entries = [entry for entry in (_entry(name, scored[name], found) for name in names) if entry.metrics]
    if not any(entry.task == asked for entry in entries):
        return entries
    return [entry.model_copy(update={"part_of": None if entry.task == asked else asked}) for entry in entries]


def _tasks_of(name: str, found: dict[str, Any]) -> set[str]:
    """The tasks of a group and of its groups; a task is its own."""
    if name in found["n-samples"]:
        return {name}
    parts = found.get("group_subtasks", {}).get(name, [])
    return set().union(*(_tasks_of(part, found) for part in parts))


def _entry(name: str, values: dict[str, Any], found: dict[str, Any]) -> HarnessEntry:
    metrics: dict[str, float] = {}
    errors: dict[str, float] = {}
    for key, value in values.items():
        metric, comma, filtered = key.partition(",")
        if not comma or isinstance(value, str | bool) or not isinstance(value, int | float) or value != value:
            continue
        known = errors if metric.endswith("_stderr") else metrics
        metric = metric.removesuffix("_stderr")
        known[metric if filtered == "none" else f"{metric},{filtered}"] = float(value)
    better = found.get("higher_is_better", {}).get(name) or {}
    return HarnessEntry(
        task=name,
        documents=sum(int(found["n-samples"][task]["effective"]) for task in _tasks_of(name, found)),
        metrics=metrics,
        standard_errors=errors,
        lower_is_better=[metric for metric in metrics if better.get(metric.partition(",")[0]) is False],
        part_of=None,
    )


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
