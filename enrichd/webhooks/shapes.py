"""The JSON shapes of endpoints and deliveries, for the API and `enrichctl --json` alike."""

from __future__ import annotations

from typing import Any

from enrichd.domain.jobs import iso
from enrichd.store.delivery_log import Attempt, Delivery
from enrichd.store.webhooks import Webhook


def webhook_shape(webhook: Webhook, *, secret: str | None = None) -> dict[str, Any]:
    """Return an endpoint in camelCase; `secret` is there once, when it was made."""
    shape: dict[str, Any] = {
        "id": str(webhook.id),
        "workspaceId": webhook.workspace_id,
        "url": webhook.url,
        "events": webhook.events,
        "description": webhook.description,
        "enabled": webhook.enabled,
        "disabledReason": webhook.disabled_reason,
        "disabledAt": iso(webhook.disabled_at),
        "failureStreak": webhook.failure_streak,
        "failingSince": iso(webhook.failing_since),
        "secrets": webhook.secrets,
        "createdAt": iso(webhook.created_at),
        "updatedAt": iso(webhook.updated_at),
    }
    return shape if secret is None else {**shape, "secret": secret}


def delivery_shape(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery in camelCase."""
    return {
        "id": str(delivery.id),
        "sequence": delivery.sequence,
        "webhookId": None if delivery.webhook_id is None else str(delivery.webhook_id),
        "url": delivery.url,
        "event": delivery.event,
        "jobId": None if delivery.job_id is None else str(delivery.job_id),
        "itemKey": delivery.item_key,
        "data": delivery.data,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "nextAttemptAt": iso(delivery.next_attempt_at),
        "answerStatus": delivery.answer_status,
        "answer": delivery.answer,
        "latencyMs": delivery.latency_ms,
        "error": delivery.error,
        "createdAt": iso(delivery.created_at),
        "attemptedAt": iso(delivery.attempted_at),
        "finishedAt": iso(delivery.finished_at),
        "history": [attempt_shape(one) for one in delivery.history],
    }


def attempt_shape(attempt: Attempt) -> dict[str, Any]:
    """Return one attempt of a delivery in camelCase."""
    return {
        "attempt": attempt.attempt,
        "at": iso(attempt.at),
        "answerStatus": attempt.answer_status,
        "answer": attempt.answer,
        "latencyMs": attempt.latency_ms,
        "error": attempt.error,
    }
