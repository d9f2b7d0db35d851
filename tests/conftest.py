"""Fixtures that all tests share."""

import os

# Before torch is imported: two cores shared by several processes are fastest with one thread each.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

pytest_plugins = ["tests.fixtures.s3", "tests.fixtures.smollm2"]
