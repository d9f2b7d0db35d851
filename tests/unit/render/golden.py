"""Manifests of two jobs, kept as files. `python -m tests.unit.render.golden` writes them anew; read the difference."""

from pathlib import Path

import yaml

from distill_operator.api import DistillJob, load_job
from distill_operator.configuration import OperatorConfiguration, load_configuration
from distill_operator.constants import CHILDREN_KEY
from distill_operator.lifecycle.decision import Children
from distill_operator.render import config_map, render_attempt, select

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
ATTEMPTS = {"minimal": 1, "everything": 3}
"""The jobs, and the attempt that is rendered of each."""


def job_named(name: str) -> DistillJob:
    path = HERE / "manifests" / f"{name}.yaml"
    return load_job(path.read_text(), path.name)


def configuration_of(name: str) -> OperatorConfiguration:
    path = HERE / "manifests" / f"{name}-configuration.yaml"
    return load_configuration(path) if path.exists() else OperatorConfiguration()


def all_wanted(job: DistillJob, attempt: int) -> Children:
    """Everything at once, which is never wanted together in a real job."""
    return Children(
        attempt=attempt,
        running=True,
        prepare=True,
        evaluate=True,
        teachers=job.spec.teacher.replicas,
        students=job.spec.student.workers,
        announced_teachers=job.spec.teacher.replicas,
    )


def golden_files(name: str) -> dict[str, str]:
    """The files of one job: one for each child, as it is applied. The ConfigMap holds the others, so not again here."""
    job, attempt = job_named(name), ATTEMPTS[name]
    rendered = render_attempt(job, configuration_of(name), attempt)
    record = config_map(job, rendered, attempt)
    record["data"] = {key: text for key, text in record["data"].items() if key != CHILDREN_KEY}
    manifests = [record, *select(rendered, all_wanted(job, attempt))]
    return {
        f"{manifest['metadata']['name']}.{manifest['kind'].lower()}.yaml": yaml.safe_dump(
            manifest, sort_keys=False, width=120
        )
        for manifest in manifests
    }


def main() -> None:
    for name in ATTEMPTS:
        folder = GOLDEN / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.yaml"):
            old.unlink()
        for file, text in golden_files(name).items():
            (folder / file).write_text(text)


if __name__ == "__main__":
    main()
