"""What can go wrong between the operator and the API server, as one type."""

CONNECTION = 0
"""Status of a request that got no answer."""
NOT_FOUND = 404
CONFLICT = 409
GONE = 410
SILENT = "Silent"
"""Reason of a watch that heard nothing for too long."""
_REFUSED = (400, 403, 405, 413, 415, 422)


class ClusterError(Exception):
    """A request that failed. The message says which one and what the API server said."""

    def __init__(
        self, request: str, message: str, *, status: int, reason: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(f"{request}: {message}")
        self.said = message
        """The API server's own words."""
        self.status = status
        """HTTP status; `CONNECTION` when there was no answer."""
        self.reason = reason
        """Kubernetes' word for it: `NotFound`, `AlreadyExists`, `Expired` …"""
        self.retry_after = retry_after
        """Seconds that the API server wants to be left alone."""

    @property
    def refused(self) -> bool:
        """Whether the API server understood the request and won't do it: invalid, forbidden, over quota."""
        return self.status in _REFUSED

    @property
    def expired(self) -> bool:
        """Whether the history that a watch asked for is gone, so that it must list again."""
        return self.status == GONE or self.reason in ("Expired", "Gone")
