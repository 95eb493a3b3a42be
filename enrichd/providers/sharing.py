"""What the providers of all processes know together, from the settings."""

from __future__ import annotations

from enrichd.providers.answers import Answers
from enrichd.providers.breakers import Breakers
from enrichd.providers.callbacks import Callbacks
from enrichd.providers.credits import Caps
from enrichd.providers.credits_left import CreditsLeft
from enrichd.providers.keyring import Keyring
from enrichd.providers.limiter import RateLimiter
from enrichd.providers.roster import Shared
from enrichd.providers.suppressions import Suppressions
from enrichd.settings import Settings
from enrichd.store.database import Database
from enrichd.store.installation import Installation


def share(settings: Settings, database: Database) -> Shared:
    """Return the parts over one connection of their own; nothing is connected yet."""
    own = database.sibling("providers")
    installation = Installation(own, settings)
    caps = Caps(
        per_day=settings.credits_per_day_max,
        workspace_per_day=settings.workspace_credits_per_day_max,
        workspace_per_month=settings.workspace_credits_per_month_max,
    )
    return Shared(
        database=own,
        answers=Answers(own, caps),
        limiter=RateLimiter(own),
        breakers=Breakers(own),
        keyring=Keyring(own, installation, settings.provider),
        suppressions=Suppressions(own, installation),
        callbacks=Callbacks(own, base_url=settings.callback_base_url),
        caps=caps,
        credits_left=CreditsLeft(own),
        wait_s_max=settings.provider_wait_max_s,
    )
