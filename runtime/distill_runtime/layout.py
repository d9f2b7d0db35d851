"""Keys in the object store: the only place where they are put together.

plans/<plan>/…                        tokenised data, by the digest of its inputs
models/<digest>/…                     initial students, as Hugging Face folders
definitions/<digest>/…                task definitions for lm-evaluation-harness
heads/<teacher>/…                     output heads of teachers
signals/<signal>/<shard>/…            what a teacher says about a shard of sequences, by content: shared by jobs
evaluations/<digest>.json             scores of one model on one set of data
evaluations/<digest>/claims/…         who is making them
trainings/<training>/…                checkpoints, curves, the exported model, the report, the fence; in streaming mode
                                      the student's position and the signals of this training alone
jobs/<namespace>/<name>/<uid>/…       pointers of one DistillJob: prepared.json, the presence of its teachers
"""

from distill_runtime.contract.run import RunConfig


def plan_key(digest: str) -> str:
    """Where the plan with this digest of inputs is."""
    return f"plans/{digest}"


def model_key(digest: str) -> str:
    """Where the initial student with this digest is."""
    return f"models/{digest}"


def definitions_key(digest: str) -> str:
    """Where the folder of task definitions with this digest is."""
    return f"definitions/{digest}"


def head_key(digest: str) -> str:
    """Where the output head of the teacher with this digest is."""
    return f"heads/{digest}"


def signal_key(digest: str) -> str:
    """Where signals of this teacher and spec are, shared by all jobs."""
    return f"signals/{digest}"


def evaluation_key(digest: str) -> str:
    """Where the scores with this digest of inputs are."""
    return f"evaluations/{digest}.json"


def training_key(digest: str) -> str:
    """Where checkpoints, curves, model and report of a training are."""
    return f"trainings/{digest}"


def job_key(config: RunConfig) -> str:
    """Where the pointers of one DistillJob are."""
    return f"jobs/{config.namespace}/{config.name}/{config.uid}"


def prepared_key(config: RunConfig) -> str:
    """Where `prepare` says what it made."""
    return f"{job_key(config)}/prepared.json"
