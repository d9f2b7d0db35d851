"""What torchrun starts in the tests: the student's role with an invented teacher, on one configuration or several.

Several are run in one process, which saves their start-up: each outcome is written to `outcomes.json`. A single one
goes through `run_role`, as in a pod. A run may have a fault, which strikes at its Nth fetch of training rows on a rank.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Sequence as Many
from pathlib import Path
from typing import Any

os.environ["DS_ACCELERATOR"] = "cpu"

import torch

from distill_runtime.contract import environment
from distill_runtime.contract.run import RunConfig
from distill_runtime.data.plan import Plan
from distill_runtime.errors import RetryError, RunError
from distill_runtime.logs import configure_logging
from distill_runtime.prepared import Prepared
from distill_runtime.process import run_role
from distill_runtime.progress import state_folder
from distill_runtime.signals.addresses import signal_of
from distill_runtime.store.base import ObjectStore
from distill_runtime.student.distributed import Ranks
from distill_runtime.student.fence import Fence
from distill_runtime.student.job import OpenSource, train
from tests.runtime.student.scenario import InventedTeacher


class FaultyTeacher(InventedTeacher):
    def __init__(self, plans: dict[str, Plan], prepared: Prepared, strike: Any) -> None:
        super().__init__(plans, prepared.vocabulary, {name: signal_of(prepared, name).row for name in plans})
        self.fetches = 0
        self._strike = strike

    def fetch(self, plan: str, sequences: Many[int]) -> list[torch.Tensor]:
        rows = super().fetch(plan, sequences)
        self.fetches += plan == "train"
        return self._strike(self.fetches, rows) if plan == "train" else rows


def strike_with(fault: dict[str, Any], store: ObjectStore, config: RunConfig, prepared: Prepared, rank: int) -> Any:
    def strike(fetches: int, rows: list[torch.Tensor]) -> list[torch.Tensor]:
        if fault.get("rank", 0) != rank or fetches != fault.get("fetch"):
            return rows
        match fault["kind"]:
            case "sigterm":
                os.kill(os.getpid(), signal.SIGTERM)
            case "sigkill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "missing":
                raise RetryError("nobody makes shard 3 any more.", reason="SignalsMissing", needs="signals")
            case "fence":
                Fence.take(store, prepared.training_digest, uid=config.uid, attempt=config.attempt + 1)
            case "nan":
                return [row * float("nan") for row in rows]
        return rows

    return strike


def inventor(faults: dict[str, dict[str, Any]]) -> OpenSource:
    def invent(store: ObjectStore, config: RunConfig, prepared: Prepared, cache: Path, ranks: Ranks) -> FaultyTeacher:
        assert prepared.evaluation is not None
        plans = {"train": Plan(store, prepared.train), "evaluation": Plan(store, prepared.evaluation)}
        fault = faults.get(f"{config.name}-{config.attempt}", {})
        return FaultyTeacher(plans, prepared, strike_with(fault, store, config, prepared, ranks.rank))

    return invent


def run_all(configs: list[Path], open_source: OpenSource) -> None:
    configure_logging("student")
    outcomes: dict[str, dict[str, Any]] = {}
    for path in configs:
        config = RunConfig.model_validate_json(path.read_bytes())
        try:
            outcomes[path.stem] = {"facts": dict(train(config, open_source))}
        except RunError as error:
            needs = getattr(error, "needs", None)
            outcomes[path.stem] = {"error": str(error), "reason": error.reason, "code": int(error.code), "needs": needs}
    (state_folder() / f"outcomes-{os.environ['RANK']}.json").write_text(json.dumps(outcomes))
    logging.shutdown()
    # As `run_role` ends: gloo's threads may abort an interpreter that shuts down.
    os._exit(0)


def main() -> None:
    order = json.loads(sys.argv[1])
    configs = [Path(path) for path in order["configs"]]
    if len(configs) > 1:
        run_all(configs, inventor(order["faults"]))
        return
    os.environ[environment.RUN_CONFIG] = str(configs[0])
    run_role("student", lambda config: train(config, inventor(order["faults"])))


if __name__ == "__main__":
    main()
