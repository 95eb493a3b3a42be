"""What the person who runs enrichd has chosen: `Settings.load()` once, then plain values.

A *variable* has the name people write (`POLL_INTERVAL`, milliseconds); a *field* has the name the
code reads (`poll_interval_s`, seconds). A *layer* is one place variables are written in: the
command line, the environment, `.env`, `enrichd.toml`. The strongest layer that has a variable
wins. No other module reads the environment.
"""

from enrichd.settings.explain import SettingRow
from enrichd.settings.model import Settings
from enrichd.settings.providers import ProviderSettings

__all__ = ["ProviderSettings", "SettingRow", "Settings"]
