"""The one error of this package."""


class TestClusterError(Exception):
    """Something about the test cluster is wrong; the message says what, where and what to do."""

    __test__ = False
    """Keeps pytest from taking this class for tests."""
