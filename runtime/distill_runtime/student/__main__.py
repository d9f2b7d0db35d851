"""`torchrun … -m distill_runtime.student`: one process of the student."""

import os

from distill_runtime.contract.run import RunConfig
from distill_runtime.process import Facts, run_role


def main(config: RunConfig) -> Facts:
    """Chooses the device before DeepSpeed is imported, which looks for one at once."""
    if config.work.student.gpus_per_worker == 0:
        os.environ["DS_ACCELERATOR"] = "cpu"
    from distill_runtime.student.job import train

    return train(config)


if __name__ == "__main__":
    run_role("student", main)
