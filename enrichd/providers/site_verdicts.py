"""Pages that are not a company's website although they answer with 200."""

from __future__ import annotations

import re
from typing import Final

from enrichd.domain.web_links import registrable_domain
from enrichd.providers.site_markup import Markup

PARKED_TEXT_MAX: Final = 3_000
"""Visible characters; a domain trader's own shop says the same words in many more."""
SCRIPT_ONLY_TEXT_MAX: Final = 250

_PARKING_DOMAINS: Final = frozenset(
    {
        "above.com",
        "afternic.com",
        "bodis.com",
        "dan.com",
        "domainmarket.com",
        "hugedomains.com",
        "parkingcrew.net",
        "parklogic.com",
        "sedo.com",
        "sedoparking.com",
        "skenzo.com",
        "undeveloped.com",
        "uniregistry.com",
        "voodoo.com",
    }
)
_PARKED = re.compile(
    r"domain (?:name )?(?:is|may be|could be|might be|has been) (?:\w+ )?(?:for sale|parked)"
    r"|(?:buy|purchase|inquire about|make an offer (?:on|for)) this domain|this domain is parked"
    r"|parked (?:free|domain)|domain parking|future home of|is available for purchase"
    r"|domain(?:name)? (?:steht|ist) (?:\w+ ){0,3}(?:zum verkauf|zu verkaufen|geparkt)"
    r"|(?:ce|le) (?:nom de )?domaine est (?:à vendre|en vente)|dominio (?:está )?en venta"
    r"|dominio in vendita|deze domeinnaam is te koop"
)
_DEFAULT_PAGE = re.compile(
    r"apache2? .{0,30}default page|welcome to nginx|iis windows server|index of /"
    r"|web ?server's default page|default web ?site page|plesk (?:obsidian|default)|it works!$"
    r"|account (?:has been )?suspended|website coming soon|site not found"
)
_APP_IDS: Final = frozenset(
    {"root", "app", "__next", "__nuxt", "svelte", "ember-app", "gatsby-focus-wrapper", "main-app"}
)
_NEEDS_SCRIPT = re.compile(
    r"(?:enable|activate|requires?|need|turn on|aktivieren|activer).{0,40}javascript"
    r"|javascript.{0,40}(?:enable|required|disabled|aktivieren|activer)"
)


def is_parked(markup: Markup, url: str) -> bool:
    """Say whether a page only holds the place of a domain that is for sale."""
    if registrable_domain(url) in _PARKING_DOMAINS:
        return True
    sources = [registrable_domain(source) for source in markup.scripts[:50]]
    if any(source in _PARKING_DOMAINS for source in sources):
        return True
    return len(markup.text) < PARKED_TEXT_MAX and _PARKED.search(_seen(markup)) is not None


def is_default_page(markup: Markup) -> bool:
    """Say whether a page is what a server shows before anybody made a website."""
    text = _seen(markup)
    return len(markup.text) < 5_000 and _DEFAULT_PAGE.search(text[:400]) is not None


def is_script_only(markup: Markup) -> bool:
    """Say whether a page is empty until its scripts run, which they do not here."""
    text = _seen(markup)
    if len(text) - len(markup.title) > SCRIPT_ONLY_TEXT_MAX or not markup.script_chars:
        return False
    return bool(markup.ids & _APP_IDS) or _NEEDS_SCRIPT.search(text) is not None


def _seen(markup: Markup) -> str:
    return f"{markup.title} {markup.text[:PARKED_TEXT_MAX]}".casefold().replace("\n", " ").strip()
