"""What a job would cost, for `enqueue --dry-run`."""

from __future__ import annotations

from pydantic import BaseModel

from enrichd.ctl import render
from enrichd.ctl.invocation import Invocation
from enrichd.domain.merging import amount
from enrichd.handlers.estimating import estimate_job
from enrichd.providers.estimates import Estimate
from enrichd.providers.keyring import Keyring
from enrichd.providers.roster import build_providers
from enrichd.store.installation import Installation


async def estimate_of(invocation: Invocation, payload: BaseModel) -> Estimate | None:
    """Return what a job of the call's workspace would cost; None if nobody can say."""
    async with invocation.session() as session:
        database, settings = session.database, session.settings
        keyring = Keyring(database, Installation(database, settings), settings.provider)
        async with build_providers(settings_of=settings.provider) as providers:
            return await estimate_job(
                payload,
                workspace_id=session.workspace,
                providers=providers,
                database=database,
                keyring=keyring,
            )


def show_estimate(invocation: Invocation, job_type: str, found: Estimate | None) -> None:
    """Print an estimate."""
    if invocation.is_json:
        document = found.to_json() if found is not None else {"maxCostCredits": None}
        render.json_document({"isDryRun": True, **document})
        return
    if found is None:
        render.line(f"nothing is known of what {job_type} costs; nothing was enqueued")
        return
    leads = "1 lead" if found.leads == 1 else f"{found.leads:,} leads"
    alike = f" ({found.unique_leads:,} different)" if found.unique_leads < found.leads else ""
    cached = f", {found.cached:,} of {found.questions:,} answers known" if found.cached else ""
    render.line(f"at most {amount(found.most_now):,} credits for {leads}{alike}{cached}")
    for name, cost in found.by_provider.items():
        render.line(f"  {name}: {amount(cost):,}")
    for name, reason in found.skipped.items():
        render.line(f"  {name}: would not be asked ({reason})")
    render.line("nothing was enqueued")
