"""The metrics, for Prometheus. What each means to the people on duty: docs/metrics.md."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("sluice_requests_total", "HTTP requests answered.", ["function", "method", "status"])
REQUEST_SECONDS = Histogram(
    "sluice_request_seconds",
    "Time to answer an HTTP request.",
    ["function"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
TASKS_ACCEPTED = Counter(
    "sluice_tasks_accepted_total", "Tasks accepted, by where they were kept at first.", ["kind", "kept_by"]
)
TASKS_STARTED = Counter("sluice_tasks_started_total", "Attempts started.", ["kind"])
TASKS_FINISHED = Counter("sluice_tasks_finished_total", "Tasks that an engine brought to an end.", ["kind", "reason"])
TASKS_PUT_OFF = Counter("sluice_tasks_put_off_total", "Attempts that ended with a transient error.", ["kind", "reason"])
TASKS_RUNNING = Gauge("sluice_tasks_running", "Tasks in a handler now.", multiprocess_mode="livesum")
TASK_SECONDS = Histogram(
    "sluice_task_seconds",
    "Time from an attempt's start to its end.",
    ["kind"],
    buckets=(0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300),
)
QUEUED_SECONDS = Histogram(
    "sluice_task_queued_seconds",
    "Time from a task's acceptance to its first start.",
    buckets=(0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300),
)
TASKS_MENDED = Counter("sluice_tasks_mended_total", "Tasks that the sweep mended, by what was wrong.", ["fault"])
MESSAGES_REDELIVERED = Counter(
    "sluice_messages_redelivered_total", "Messages that the broker handed out again: their first taker went away."
)
MESSAGES_UNREADABLE = Counter("sluice_messages_unreadable_total", "Messages that were no tasks.")
