"""Web addresses as names: whose domain is it, and whose social profile.

A profile URL has one canonical form for each network, so that the same profile found in JSON-LD, a
footer and a provider's answer is counted once. Links that act (share, log in) or show a single post
are not profiles and have no form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from typing import Final, Literal, TypeAlias
from urllib.parse import parse_qs, quote, unquote, urlsplit

import idna
import tldextract

Kind: TypeAlias = Literal["person", "company"]

URL_CHARS_MAX: Final = 2_048
HOST_CHARS_MAX: Final = 253

_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\\]")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


def host_of(url_or_host: str) -> str | None:
    """Return the lower-case ASCII host of a URL, an email's domain part or a bare host.

    None for IP addresses, single labels (`localhost`) and whatever is no host name.
    """
    text = url_or_host.strip()
    if not text or len(text) > URL_CHARS_MAX or _NOT_IN_URLS.search(text):
        return None
    try:
        parts = urlsplit(text if "//" in text else f"//{text}")
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return None
    # Checked before the encoding: IDNA takes quadratic time, and characters only get more.
    if "." not in host or len(host) > HOST_CHARS_MAX:
        return None
    try:
        ascii_host = host if host.isascii() else idna.encode(host, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return None
    if _is_ip(ascii_host) or not all(_LABEL.fullmatch(label) for label in ascii_host.split(".")):
        return None
    return ascii_host if len(ascii_host) <= HOST_CHARS_MAX else None


def registrable_domain(url_or_host: str, *, private_suffixes: bool = True) -> str | None:
    """Return the part of a host that somebody registered: `acme.co.uk` of `www.acme.co.uk`.

    With `private_suffixes`, hosting platforms count as suffixes (`acme.github.io` is itself);
    without, only registries' do. None for a bare suffix and for what has no host name.
    """
    host = host_of(url_or_host)
    if host is None:
        return None
    parts = _suffixes(private_suffixes)(host)
    if not parts.suffix:  # Unknown to the list (`acme.test`): its default rule is one label.
        return ".".join(host.split(".")[-2:])
    return f"{parts.domain}.{parts.suffix}" if parts.domain else None


def social_profile(url: str, *, assume: Kind = "company") -> dict[str, str] | None:
    """Return whose profile a URL is: `{"network", "kind", "url", "handle"}`, or None.

    `assume` is the kind where the network's URLs do not tell a person from a company.
    """
    host = host_of(url)
    if host is None:
        return None
    site = _SITES.get(_plain_host(host)) or _mastodon(host)
    if site is None:
        return None
    parts = urlsplit(url.strip() if "//" in url else f"//{url.strip()}")
    if parts.scheme not in ("", "http", "https") or parts.username is not None:
        return None
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    if site.network == "facebook" and segments[:1] == ["profile.php"]:
        return _facebook_number(parts.query)
    for shape in site.shapes:
        handle = shape.handle(segments)
        if handle is not None:
            canonical = site.base + shape.form.format(quote(handle, safe="@._-~"))
            kind = shape.kind or assume
            return {"network": site.network, "kind": kind, "url": canonical, "handle": handle}
    return None


@dataclass(frozen=True, slots=True)
class _Shape:
    """One form of a network's profile paths."""

    lead: tuple[str, ...]
    """Fixed first segments, any of them; `@` means that the handle itself starts with one."""
    form: str
    pattern: re.Pattern[str]
    kind: Kind | None = None
    deeper: bool = False
    """Whether further segments still show the same profile (`/company/x/about`)."""
    keeps_case: bool = False

    def handle(self, segments: Sequence[str]) -> str | None:
        """Return the handle these path segments name."""
        rest = segments
        if self.lead and self.lead != ("@",):
            if not segments or segments[0].lower() not in self.lead:
                return None
            rest = segments[1:]
        if not rest or (len(rest) > 1 and not self.deeper):
            return None
        handle = rest[0]
        if self.lead == ("@",):
            if not handle.startswith("@"):
                return None
            handle = handle[1:]
        if not self.pattern.fullmatch(handle) or (not self.lead and handle.lower() in _RESERVED):
            return None
        return handle if self.keeps_case else handle.lower()


@dataclass(frozen=True, slots=True)
class _Site:
    network: str
    base: str
    shapes: tuple[_Shape, ...]


_SLUG = re.compile(r"[^\s/?#<>\"'@]{1,100}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_X_NAME = re.compile(r"\w{1,15}", re.ASCII)
_GITHUB_NAME = re.compile(r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}")
_CHANNEL_ID = re.compile(r"UC[A-Za-z0-9_-]{22}")

# First segments that are the network's own pages. `tr` is Facebook's tracking pixel.
_RESERVED_WORDS = (
    "about accounts ads apps auth blog business careers contact developer developers dialog "
    "directory direct download embed en events explore features feed gaming groups hashtag help "
    "home i intent invite jobs join legal live locations login logout marketplace media messages "
    "nonprofits notifications oauth oembed orgs p pages pg people photo photo.php photos pin "
    "playlist plugins policies policy post posts premium press pricing privacy profile "
    "profile.php public pulse reel reels results r search security settings share share.php "
    "sharearticle shareoffsite sharer sharer.php shop shorts signin signup site sponsors status "
    "stories story.php subscription_center support terms tos topics tr trending tv upload v video "
    "videos watch web www"
)
_RESERVED: Final = frozenset(_RESERVED_WORDS.split())

_AT = _Shape(("@",), "@{}", _NAME)
_PLAIN = _Shape((), "{}", _NAME)

_X = _Site("x", "https://x.com/", (_Shape((), "{}", _X_NAME),))
_LINKEDIN = _Site(
    "linkedin",
    "https://www.linkedin.com/",
    (
        _Shape(("company", "company-beta"), "company/{}", _SLUG, "company", deeper=True),
        _Shape(("in",), "in/{}", _SLUG, "person", deeper=True),
        _Shape(("school",), "school/{}", _SLUG, "company", deeper=True),
        _Shape(("showcase",), "showcase/{}", _SLUG, "company", deeper=True),
    ),
)
_FACEBOOK = _Site(
    "facebook", "https://www.facebook.com/", (_Shape(("pg",), "{}", _NAME, deeper=True), _PLAIN)
)
_INSTAGRAM = _Site("instagram", "https://www.instagram.com/", (_PLAIN,))
_YOUTUBE = _Site(
    "youtube",
    "https://www.youtube.com/",
    (
        _Shape(("@",), "@{}", _SLUG, deeper=True),
        _Shape(("channel",), "channel/{}", _CHANNEL_ID, deeper=True, keeps_case=True),
        _Shape(("c",), "c/{}", _SLUG, deeper=True),
        _Shape(("user",), "user/{}", _NAME, deeper=True),
        _PLAIN,
    ),
)
_GITHUB = _Site(
    "github",
    "https://github.com/",
    (_Shape(("orgs",), "{}", _GITHUB_NAME, "company", deeper=True), _Shape((), "{}", _GITHUB_NAME)),
)
_CRUNCHBASE = _Site(
    "crunchbase",
    "https://www.crunchbase.com/",
    (
        _Shape(("organization",), "organization/{}", _NAME, "company", deeper=True),
        _Shape(("person",), "person/{}", _NAME, "person", deeper=True),
    ),
)
_TIKTOK = _Site("tiktok", "https://www.tiktok.com/", (_AT,))
_GRAVATAR = _Site("gravatar", "https://gravatar.com/", (_Shape((), "{}", _NAME, "person"),))

# Networks without a name of their own in the data model; still worth telling apart by URL.
_XING = _Site(
    "other",
    "https://www.xing.com/",
    (
        _Shape(("pages", "companies", "company"), "pages/{}", _SLUG, "company", deeper=True),
        _Shape(("profile",), "profile/{}", _SLUG, "person", deeper=True),
    ),
)
_BLUESKY = _Site("other", "https://bsky.app/", (_Shape(("profile",), "profile/{}", _NAME),))
_THREADS = _Site("other", "https://www.threads.net/", (_AT,))
_PINTEREST = _Site("other", "https://www.pinterest.com/", (_PLAIN,))
_VIMEO = _Site("other", "https://vimeo.com/", (_Shape((), "{}", re.compile(r"[A-Za-z]\w{1,60}")),))

_SITES: Final[Mapping[str, _Site]] = {
    "x.com": _X,
    "twitter.com": _X,
    "linkedin.com": _LINKEDIN,
    "facebook.com": _FACEBOOK,
    "fb.com": _FACEBOOK,
    "instagram.com": _INSTAGRAM,
    "youtube.com": _YOUTUBE,
    "github.com": _GITHUB,
    "crunchbase.com": _CRUNCHBASE,
    "tiktok.com": _TIKTOK,
    "gravatar.com": _GRAVATAR,
    "xing.com": _XING,
    "bsky.app": _BLUESKY,
    "threads.net": _THREADS,
    "threads.com": _THREADS,
    "pinterest.com": _PINTEREST,
    "vimeo.com": _VIMEO,
}

# A Mastodon server can have any name; these are the large ones, besides those that say it.
_MASTODON_HOST_WORDS = (
    "chaos.social fosstodon.org hachyderm.io indieweb.social infosec.exchange mas.to "
    "masto.ai mstdn.jp mstdn.party mstdn.social norden.social ruby.social social.vivaldi.net "
    "techhub.social toot.community troet.cafe universeodon.com"
)
_MASTODON_HOSTS: Final = frozenset(_MASTODON_HOST_WORDS.split())

# Subdomains that show the same profiles: mobile and old addresses, and languages (`de-de.`).
_SAME_SITE = re.compile(r"(?:www|m|mobile|touch|web|[a-z]{2}(?:-[a-z]{2})?)\.(?=[^.]+\.[a-z]+$)")


def is_social_host(host: str) -> bool:
    """Say whether a host is a social network's, where a page describes a member and not itself."""
    return _plain_host(host) in _SITES or host in {"linktr.ee", "linkin.bio", "fb.me", "youtu.be"}


def _plain_host(host: str) -> str:
    return _SAME_SITE.sub("", host, count=1)


def _mastodon(host: str) -> _Site | None:
    if host in _MASTODON_HOSTS or host.startswith(("mastodon.", "mstdn.")):
        return _Site("mastodon", f"https://{host}/", (_AT,))
    return None


def _facebook_number(query: str) -> dict[str, str] | None:
    number = parse_qs(query, max_num_fields=50).get("id", [""])[0] if query.count("&") < 50 else ""
    if not re.fullmatch(r"[0-9]{5,20}", number):
        return None
    url = f"https://www.facebook.com/profile.php?id={number}"
    return {"network": "facebook", "kind": "person", "url": url, "handle": number}


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        # `0x7f.1` is an address to the C library's resolver, though not to us.
        return host.rsplit(".", 1)[-1].isdigit() or bool(re.search(r"\.0x[0-9a-f]*$", host))
    return True


@cache
def _suffixes(private: bool) -> tldextract.TLDExtract:
    # Only the list that comes with the package: no request, no cache directory on disk.
    return tldextract.TLDExtract(
        cache_dir=None, suffix_list_urls=(), include_psl_private_domains=private
    )
