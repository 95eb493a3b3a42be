"""Logs for people and machines: one event a line on standard error, nothing secret in any of them.

A *component* is the part of enrichd that speaks (`queue`, `provider`); its logger is named
`enrichment:<component>`. Writing a log never raises into the caller: a full disk or a closed pipe
costs the line, not the job.
"""

from enrichd.logs.loggers import configure_logs, get_logger
from enrichd.logs.redaction import redact_text, register_secret

__all__ = ["configure_logs", "get_logger", "redact_text", "register_secret"]
