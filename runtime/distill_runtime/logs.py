"""One logging set-up: JSON lines in pods, plain lines on a terminal."""

import logging
import os
import sys

from pythonjsonlogger.json import JsonFormatter

from distill_runtime.contract import environment

NOISY = ("botocore", "boto3", "urllib3", "filelock", "httpx", "matplotlib", "fsspec", "asyncio", "vllm")
"""Libraries that log each of their steps."""


def configure_logging(role: str) -> None:
    """Sends the root logger to standard error, in the format that the environment asks for (`text` by default)."""
    handler = logging.StreamHandler(sys.stderr)
    if os.environ.get(environment.LOG_FORMAT, "text") == "json":
        handler.setFormatter(
            JsonFormatter(
                "{asctime}{levelname}{name}{message}",
                style="{",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
                static_fields={"role": role},
            )
        )
    else:
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)-7s {role} %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
