"""One logging set-up of the operator: JSON lines in pods, plain lines on a terminal, each with its job."""

import logging
import sys
from contextvars import ContextVar
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

NO_JOB = "-"
job_in_work: ContextVar[str] = ContextVar("job_in_work", default=NO_JOB)
"""Namespace and name of the job that the current task works on."""
NOISY = ("asyncio", "aiohttp.access", "kopf.activities", "kopf.objects", "kubernetes")
"""Libraries that log each of their steps."""


class _AddJob(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.job = job_in_work.get()
        return True


def configure_logging(format: Literal["json", "text"], level: str) -> None:
    """Sends the root logger to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_AddJob())
    if format == "json":
        handler.setFormatter(
            JsonFormatter(
                "{asctime}{levelname}{name}{job}{message}",
                style="{",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(job)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
