"""The operator's process: `python -m distill_operator --configuration FILE`."""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from distill_operator.cluster.client import Client, NoCluster
from distill_operator.cluster.health import Health
from distill_operator.cluster.operation import Operation
from distill_operator.configuration import InvalidConfiguration, OperatorConfiguration, load_configuration
from distill_operator.handlers import run_kopf
from distill_operator.logs import configure_logging
from distill_operator.serving import Server

logger = logging.getLogger(__name__)

WRONG_CONFIGURATION = 64
"""Exit code: starting again won't help."""


def main() -> int:
    """Runs the operator until SIGTERM, or until it can't go on."""
    parser = argparse.ArgumentParser(prog="python -m distill_operator", description="The operator of DistillJobs.")
    parser.add_argument("--configuration", type=Path, required=True, metavar="FILE", help="its configuration (YAML)")
    try:
        configuration = load_configuration(parser.parse_args().configuration)
    except InvalidConfiguration as error:
        sys.stderr.write(f"{error}\n")
        return WRONG_CONFIGURATION
    configure_logging(configuration.log_format, configuration.log_level)
    try:
        client = asyncio.run(Client.connect())
    except NoCluster as error:
        logger.error("%s", error)
        return 1
    return run(client, configuration)


def run(client: Client, configuration: OperatorConfiguration) -> int:
    """Runs the operator. Returns the process's exit code: 0 if it was asked to end."""
    stop, reasons, health = asyncio.Event(), list[str](), Health()

    def end(reason: str) -> None:
        reasons.append(reason)
        health.over = reason
        stop.set()

    operation = Operation(client, configuration, health, end)
    server = Server(
        health,
        probe_port=configuration.probe_port,
        metrics_port=configuration.metrics_port,
        before_metrics=operation.count,
    )
    run_kopf(operation, server, configuration, end, stop)
    for reason in reasons:
        logger.error("the operator can't go on: %s", reason)
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())
