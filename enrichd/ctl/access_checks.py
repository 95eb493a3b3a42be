"""What `doctor` makes of roles and row level security."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from enrichd.ctl.checks import Check, fail, ok, warn
from enrichd.store.access import Access

SHOWN_MAX = 5
AGAIN = "select enrichment_secure();"


def access_checks(access: Access) -> Iterator[Check]:
    """Judge whether the daemon sees its jobs, and whether the API sees one workspace alone."""
    yield daemon(access)
    yield tenants(access)


def daemon(access: Access) -> Check:
    """A login that no policy names sees empty tables, which looks like a queue without jobs."""
    if not access.is_blind:
        return ok("daemon_role", f"{access.login} sees the jobs of every workspace")
    return fail(
        "daemon_role",
        f"row level security shows {access.login} no job at all",
        f"As {access.owner}: grant enrichd_worker to {quoted(access.login)};",
    )


def tenants(access: Access) -> Check:
    """Without the role and its policies the API does not answer."""
    name = "api_role"
    if access.api_bypasses:
        return fail(
            name,
            "enrichd_api bypasses row level security: every workspace sees all others",
            "As a superuser: alter role enrichd_api nosuperuser nobypassrls;",
        )
    if access.unprotected:
        return fail(
            name,
            f"row level security is not forced on {some(access.unprotected)}",
            f"As {access.owner}: {AGAIN}",
        )
    if access.missing_roles:
        steps = [f"create role {role} nologin;" for role in access.missing_roles]
        steps.append(f"grant enrichd_api to {quoted(access.login)};")
        return warn(
            name,
            f"the HTTP API answers 503: there is no role {' and no '.join(access.missing_roles)}",
            f"As a superuser: {' '.join(steps)} Then, as {access.owner}: {AGAIN}",
        )
    if not access.may_become_api:
        return warn(
            name,
            f"the HTTP API answers 503: {access.login} may not become enrichd_api",
            f"As a superuser: grant enrichd_api to {quoted(access.login)};",
        )
    if access.untenanted:
        return warn(
            name,
            f"the HTTP API sees nothing of {some(access.untenanted)}",
            f"As {access.owner}: {AGAIN}",
        )
    return ok(name, "the HTTP API sees one workspace at a time")


def some(names: Sequence[str]) -> str:
    """Return a few names, and how many more there are."""
    more = len(names) - SHOWN_MAX
    return ", ".join(names[:SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def quoted(name: str) -> str:
    """Return a role's name as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'
