"""Distillation against supervised fine-tuning on real data: banking77's 77 intents, at equal steps, data and student.

Usage: python benchmarks/banking77.py DATA MODEL OUTPUT [--gpus N] [--at-once N] [--seeds N …] [--rates R …]
       [--intents N] [--rows N] …

DATA is a folder with banking77's train.csv and test.csv (PolyAI, CC BY 4.0), MODEL a chat model, OUTPUT a new folder.

1. MODEL is fine-tuned on one half of the training questions: that is the teacher.
2. A student with every third of its layers learns from the other half, once by forward KL from the teacher and once by
   cross entropy on the data: the same rows in the same order, steps, schedule and optimizer. Each way at every learning
   rate, with the first seed; its best rate (lowest KL to the teacher for distillation, lowest perplexity for
   fine-tuning) again with the other seeds.
3. Of each student: KL to the teacher, agreement and perplexity on held-out questions, accuracy and macro F1 on other
   ones. The table says mean and standard deviation over the seeds.

Every run is a DistillJob through `distillctl run`. Who runs it again continues where it was.
"""

import argparse
import csv
import json
import random
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distill_runtime.contract.report import Report, Scores

TASK = "intents"
WAYS: dict[str, dict[str, Any]] = {
    "distilled": {"distillationWeight": 1.0},
    "fine-tuned": {"distillationWeight": 0.0, "crossEntropyWeight": 1.0},
}
CHOSEN_BY = {"distilled": "kl_to_teacher", "fine-tuned": "perplexity"}
"""What the learning rate of each way is chosen by; the lowest wins."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of teacher and student; 0 runs on the processor")
    parser.add_argument("--engine", default="vllm", choices=["vllm", "transformers"], help="engine of the teacher")
    parser.add_argument("--at-once", type=int, default=1, help="jobs that run side by side")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3], help="learning rates of students")
    parser.add_argument("--teacher-rate", type=float, default=2e-4)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--rows", type=int, help="training questions of each half (all of them)")
    parser.add_argument("--student-rows", type=int, help="training questions of the student (as many as --rows)")
    parser.add_argument("--intents", type=int, help="intents, drawn with a fixed seed (all of them)")
    parser.add_argument("--global-batch", type=int, default=32)
    parser.add_argument("--warmup-steps", type=int, default=20)
    parser.add_argument("--held-out", type=int, default=500, help="questions for KL, agreement and perplexity")
    parser.add_argument("--scored", type=int, default=500, help="questions for accuracy and macro F1")
    return parser.parse_args()


def write_data(options: argparse.Namespace) -> None:
    """Two halves of the training questions, and two parts of the test questions, each drawn with a fixed seed."""
    kept: set[str] | None = None
    for name, parts in (("train", ("teacher", "student")), ("test", ("heldout", "scored"))):
        with (options.data / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        if options.intents is not None:
            kept = kept or set(random.Random(77).sample(sorted({row["category"] for row in rows}), options.intents))
            rows = [row for row in rows if row["category"] in kept]
        random.Random(77).shuffle(rows)
        half = len(rows) // 2
        of_student = options.student_rows or options.rows
        limits = (options.rows, of_student) if name == "train" else (options.held_out, options.scored)
        for part, questions, limit in zip(parts, (rows[:half], rows[half:]), limits, strict=True):
            write_rows(options.output / "data" / f"{part}.jsonl", questions[:limit])


def write_rows(path: Path, questions: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "prompt": f"Name the intent of this question to a bank: {question['text']}",
            "completion": question["category"].replace("_", " "),
        }
        for question in questions
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@dataclass(frozen=True)
class Run:
    """One job."""

    way: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.way}-{self.rate:.0e}-{self.seed}".replace("+", "")


def manifest(options: argparse.Namespace, run: Run) -> dict[str, Any]:
    """The DistillJob of a run."""
    folder = options.output.absolute()
    teaching = run.way == "teacher"
    return {
        "apiVersion": "distill-operator.io/v1alpha1",
        "kind": "DistillJob",
        "metadata": {"name": run.name},
        "spec": {
            "teacher": {
                "model": f"file://{options.model.absolute() if teaching else folder / 'teacher'}",
                "engine": options.engine,
                "gpus": options.gpus,
            },
            "student": {
                "gpusPerWorker": options.gpus,
                **(
                    {"model": f"file://{options.model.absolute()}"}
                    if teaching
                    else {"initialise": {"fromTeacher": {"every": 3}}}
                ),
            },
            "data": {
                "train": f"file://{folder}/data/{'teacher' if teaching else 'student'}.jsonl",
                "evaluation": f"file://{folder}/data/heldout.jsonl",
                "maxLength": 512,
            },
            "storage": {"uri": f"file://{folder}/store"},
            "signal": {"mode": "offline"},
            "objective": WAYS["fine-tuned"] if teaching else WAYS[run.way],
            "training": {
                "epochs": options.epochs,
                "globalBatch": options.global_batch,
                "microBatch": options.global_batch,
                "optimizer": {"learningRate": run.rate},
                "schedule": {"warmupSteps": options.warmup_steps},
                "zeroStage": 1 if options.gpus else 0,
                "seed": run.seed,
                "evaluateEverySteps": 100,
                "checkpointEverySteps": 1000,
            },
            # What the teacher scores is asked of it beside each student.
            **(
                {"output": {"uri": f"file://{folder}/teacher"}}
                if teaching
                else {
                    "evaluation": {
                        # A fine-tuned student is compared with the teacher that it didn't learn from.
                        "compareWithTeacher": True,
                        "tasks": [{"kind": "classification", "name": TASK, "data": f"file://{folder}/data/scored.jsonl",
                                   "labelColumn": "completion"}]
                    }
                }
            ),
        },
    }  # fmt: skip


def distill(options: argparse.Namespace, run: Run) -> Report:
    """Runs the job, or finds that it was run."""
    folder = options.output / "runs" / run.name
    path = options.output / "jobs" / f"{run.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(manifest(options, run), sort_keys=False))
    command = [sys.executable, "-m", "distill_operator.cli", "run", str(path), "--folder", str(folder)]
    with (options.output / "jobs" / f"{run.name}.log").open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{run.name} ended with {done.returncode}: see {path.with_suffix('.log')}")
    report = Report.model_validate_json((folder / "report.json").read_text())
    print(f"{run.name}: {figures(report.student_after)}", flush=True)
    return report


def figures(scores: Scores) -> str:
    """One model's, in a line."""
    names = ("KL", "agreement", "perplexity", "accuracy", "macro F1")
    return ", ".join(f"{name} {value:.4f}" for name, value in zip(names, values_of(scores), strict=True))


def all_of(options: argparse.Namespace, runs: list[Run]) -> dict[Run, Report]:
    """Runs several jobs, some of them side by side."""
    with ThreadPoolExecutor(options.at_once) as pool:
        return dict(zip(runs, pool.map(lambda run: distill(options, run), runs), strict=True))


def values_of(scores: Scores) -> list[float]:
    task = scores.tasks.get(TASK)
    of_task = [None, None] if task is None else [task.accuracy, task.macro_f1]
    found = [scores.kl_to_teacher, scores.top1_agreement, scores.perplexity, *of_task]
    return [value if value is not None else float("nan") for value in found]


def row(name: str, rate: str, scores: list[Scores]) -> str:
    """A line of the table: mean ± standard deviation."""
    cells = [
        f"{statistics.mean(column):.4f}" + (f" ± {statistics.stdev(column):.4f}" if len(column) > 1 else "")
        for column in zip(*(values_of(one) for one in scores), strict=True)
    ]
    return "| " + " | ".join([name, rate, *cells]) + " |"


def main() -> None:
    options = arguments()
    write_data(options)
    distill(options, Run("teacher", options.teacher_rate, 0))
    first = options.seeds[0]
    # The first job asks the teacher; all others read its answers.
    found = all_of(options, [Run("distilled", options.rates[0], first)])
    rest = [Run(way, rate, first) for way in WAYS for rate in options.rates]
    found |= all_of(options, [run for run in rest if run not in found])
    best = {
        way: min(options.rates, key=lambda rate: getattr(found[Run(way, rate, first)].student_after, CHOSEN_BY[way]))
        for way in WAYS
    }
    found |= all_of(options, [Run(way, best[way], seed) for way in WAYS for seed in options.seeds[1:]])
    print("\n| model | learning rate | KL to the teacher | top-1 agreement | perplexity | accuracy | macro F1 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    any_report = found[Run("distilled", options.rates[0], first)]
    print(row("teacher", f"{options.teacher_rate:g}", [any_report.teacher]))
    print(row("student before", "–", [any_report.student_before]))
    for way in WAYS:
        reports = [found[Run(way, best[way], seed)] for seed in options.seeds]
        print(row(f"student, {way}", f"{best[way]:g}", [report.student_after for report in reports]))
    print(f"\n{any_report.steps} steps of {options.global_batch} questions, {len(options.seeds)} seeds.")


if __name__ == "__main__":
    main()
