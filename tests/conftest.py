"""Fixtures that all tests share."""

import os

from hypothesis import HealthCheck, settings

# Tests start processes: forked tokenizers would warn about their threads.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# How long an example takes depends on what else the machine does.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

pytest_plugins = [
    "tests.fixtures.kubernetes",
    "tests.fixtures.images",
    "tests.fixtures.s3",
    "tests.fixtures.smollm2",
]
