"""What the operator counts about itself, for Prometheus. Its memory and CPU come with the default registry."""

from prometheus_client import Counter, Gauge, Histogram

RECONCILES = Counter("distill_operator_reconciles", "Passes over a job, by result.", ["result"])
"""`done`; `conflict`: somebody else wrote first; `retry`: the API server failed; `error`: a fault of the operator."""
RECONCILE_SECONDS = Histogram(
    "distill_operator_reconcile_seconds",
    "Duration of a pass over a job.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
QUEUE_DEPTH = Gauge("distill_operator_queue_depth", "Jobs that wait for a pass.")
QUEUE_OLDEST_SECONDS = Gauge("distill_operator_queue_oldest_seconds", "How long the first of them has waited.")
IN_WORK_OLDEST_SECONDS = Gauge("distill_operator_in_work_oldest_seconds", "How long the longest pass has run.")
API_CALLS = Counter(
    "distill_operator_api_calls", "Requests to the API server; code `none`: no answer.", ["verb", "resource", "code"]
)
WATCH_RESTARTS = Counter(
    "distill_operator_watch_restarts",
    "Watches that began again, by why.",
    ["resource", "why"],
)
"""`end`: their time was over; `expired`: they had to list again; `silent`: nothing was heard; `error`."""
JOBS = Gauge("distill_operator_jobs", "DistillJobs by phase.", ["phase"])
LEADER = Gauge("distill_operator_leader", "1: this replica acts.")
