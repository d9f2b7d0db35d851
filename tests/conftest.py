"""Fixtures that all tests share."""

import os

# Tests start processes: forked tokenizers would warn about their threads.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

pytest_plugins = [
    "tests.fixtures.kubernetes",
    "tests.fixtures.images",
    "tests.fixtures.s3",
    "tests.fixtures.smollm2",
]
