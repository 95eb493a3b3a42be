"""One pass over a page's HTML that gathers what a company says about itself.

Written by hand and not over a tree, because pages are hostile now and then and a tree is the wrong
price: the parser at hand (Lexbor) takes over a minute, inside one uninterruptible call, for 2 MB of
nested `<div>`, of attributes in one tag, or of `<a><table>`. Here every character is looked at
once, nesting is counted to a limit, and 2 MB of any kind take well under two seconds in Python
code that lets other threads run. Nothing is lost by it: no layout is needed, only metadata, links,
visible text, and items (microdata and RDFa), which come out in JSON-LD's shape.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from enrichd.providers.site_text import unescape

DEPTH_MAX: Final = 200
ANCHORS_MAX: Final = 3_000
BLOCKS_MAX: Final = 50
METAS_MAX: Final = 300
PROPERTIES_MAX: Final = 1_000
TEXT_CHARS_MAX: Final = 100_000
VALUE_CHARS_MAX: Final = 4_000
ATTRIBUTES_CHARS_MAX: Final = 8_000
"""Of one tag; what is longer is a data URI or an attack."""

# Alternatives never fail after their first characters, so no part of a page is read twice.
_TOKEN = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<(?P<close>/?)(?P<name>[a-zA-Z][^\s/>]*)"
    r"(?P<attributes>(?:=\s*\"[^\"]*(?:\"|\Z)|=\s*'[^']*(?:'|\Z)|[^>])*+)(?:>|\Z)"
    r"|<[!?][^>]*(?:>|\Z)",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(r"([^\s=/>\"']+)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]+)))?")
_RAW_END = {
    name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE)
    for name in ("script", "style", "textarea", "title", "svg", "iframe", "xmp")
}

_VOID_NAMES = "area base br col embed hr img input link meta param source track wbr"
_VOID: Final = frozenset(_VOID_NAMES.split())
_CLOSED_BY_NEXT: Final = frozenset({"p", "li", "dt", "dd", "option", "tr", "td", "th"})
_BLOCK_NAMES = (
    "address article br dd div dt footer h1 h2 h3 h4 h5 h6 header hr li main nav p section "
    "table td th tr ul"
)
_LINE_BREAKS: Final = frozenset(_BLOCK_NAMES.split())
_INTERESTING = re.compile(r"itemprop|itemscope|typeof|property|footer|\bid\s*=", re.IGNORECASE)
_URL_ATTRIBUTE: Final = {
    "a": "href",
    "link": "href",
    "area": "href",
    "img": "src",
    "time": "datetime",
}

Attributes = dict[str, str]
Node = dict[str, Any]
"""An item in JSON-LD's shape: `@type`, `@id`, and properties with a list of values each."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A link with its text."""

    href: str
    text: str
    rel: str
    in_footer: bool


@dataclass(slots=True)
class Markup:
    """What one page holds, in the order of the page."""

    language: str = ""
    base: str = ""
    title: str = ""
    text: str = ""
    """Visible text, one line a block."""
    metas: dict[str, str] = field(default_factory=dict)
    """Content by lower-case name or property; the first one counts."""
    links: list[Attributes] = field(default_factory=list)
    anchors: list[Anchor] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    """Bodies of JSON-LD scripts."""
    microdata: list[Node] = field(default_factory=list)
    rdfa: list[Node] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    """Texts of `<address>` elements."""
    scripts: list[str] = field(default_factory=list)
    """Sources of scripts and frames."""
    script_chars: int = 0
    ids: set[str] = field(default_factory=set)


def read_markup(html: str) -> Markup:
    """Read a page; broken or hostile HTML gives less, never an error."""
    return _Reader(html).read()


@dataclass(slots=True)
class _Open:
    """An element that is not closed yet."""

    name: str
    text_from: int
    in_footer: bool
    anchor: Attributes | None = None
    item: Node | None = None
    is_rdfa: bool = False
    owner: Node | None = None
    """Whose property the text of this element is."""
    properties: tuple[str, ...] = ()


class _Reader:
    def __init__(self, html: str) -> None:
        self._html = html
        self._markup = Markup()
        self._pieces: list[str] = []
        self._text_chars = 0
        self._stack: list[_Open] = []
        self._names: dict[str, int] = {}
        """How many elements of a name are open."""
        self._too_deep: dict[str, int] = {}
        self._properties = 0

    def read(self) -> Markup:
        html, at = self._html, 0
        while (token := _TOKEN.search(html, at)) is not None:
            if token.start() > at:
                self._text(html[at : token.start()])
            at = token.end()
            name = token["name"]
            if name is None:
                continue
            name = name.lower()[:40]
            if token["close"]:
                self._close(name)
                continue
            attributes = token["attributes"]
            if name in _RAW_END:
                end = _RAW_END[name].search(html, at)
                body_end = end.start() if end else len(html)
                self._raw(name, attributes, html[at:body_end])
                at = body_end
            else:
                self._start(name, attributes)
        self._text(html[at:])
        while self._stack:
            self._pop()
        self._markup.text = "".join(self._pieces)
        return self._markup

    def _text(self, text: str) -> None:
        if self._text_chars < TEXT_CHARS_MAX and not text.isspace():
            kept = unescape(text[: TEXT_CHARS_MAX - self._text_chars])
            self._text_chars += len(kept)
            self._pieces.append(kept)
        elif text and self._pieces and self._pieces[-1] not in (" ", "\n"):
            self._pieces.append(" ")

    def _raw(self, name: str, raw_attributes: str, body: str) -> None:
        markup = self._markup
        if name == "title":
            markup.title = markup.title or unescape(body[:1_000])
            return
        if name not in ("script", "iframe"):
            return
        attributes = _attributes(raw_attributes)
        source = attributes.get("src", "")
        if source and len(markup.scripts) < METAS_MAX:
            markup.scripts.append(source[:500])
        kind = attributes.get("type", "").partition(";")[0].strip().lower()
        if kind == "application/ld+json":
            if len(markup.blocks) < BLOCKS_MAX:
                markup.blocks.append(body)
        elif name == "script":
            markup.script_chars += len(body) + len(source)

    def _start(self, name: str, raw: str) -> None:
        markup = self._markup
        if name in _LINE_BREAKS and self._pieces and self._pieces[-1] != "\n":
            self._pieces.append("\n")
        is_item_part = _INTERESTING.search(raw, 0, ATTRIBUTES_CHARS_MAX) is not None
        wanted = is_item_part or name in ("a", "meta", "link", "base", "html", "frame")
        attributes = _attributes(raw) if wanted else {}
        match name:
            case "meta" if len(markup.metas) < METAS_MAX:
                key = attributes.get("property") or attributes.get("name") or ""
                key = (key or attributes.get("http-equiv", "")).lower()[:100]
                markup.metas.setdefault(key, attributes.get("content", "")[:VALUE_CHARS_MAX])
            case "link" if len(markup.links) < METAS_MAX:
                markup.links.append(attributes)
            case "base":
                markup.base = markup.base or attributes.get("href", "")
            case "html":
                markup.language = markup.language or attributes.get("lang", "")[:20]
            case "frame":
                markup.scripts.append(attributes.get("src", "")[:500])
            case _:
                pass
        if "id" in attributes and len(markup.ids) < METAS_MAX:
            markup.ids.add(attributes["id"][:40])
        if name in _VOID:
            if is_item_part:
                self._property(name, attributes, None)
            return
        if name in _CLOSED_BY_NEXT and self._stack:
            top = self._stack[-1].name
            if top == name or top == "p" or (top in ("dt", "dd") and name in ("dt", "dd")):
                self._pop()
        if len(self._stack) >= DEPTH_MAX:
            self._too_deep[name] = self._too_deep.get(name, 0) + 1
            return
        opened = _Open(
            name=name,
            text_from=len(self._pieces),
            in_footer=(bool(self._stack) and self._stack[-1].in_footer)
            or name == "footer"
            or "footer" in (attributes.get("class", "") + attributes.get("id", "")).lower(),
            anchor=attributes if name == "a" else None,
        )
        if is_item_part:
            self._property(name, attributes, opened)
        self._stack.append(opened)
        self._names[name] = self._names.get(name, 0) + 1

    def _property(self, name: str, attributes: Attributes, opened: _Open | None) -> None:
        """Give an element's value to the item around it, and begin the item it is itself."""
        if self._properties >= PROPERTIES_MAX:
            return
        rdfa = "typeof" in attributes or ("property" in attributes and name != "meta")
        key = "property" if rdfa or "itemprop" not in attributes else "itemprop"
        properties = tuple(_local(part) for part in attributes.get(key, "").split()[:5])
        owner = self._owner(is_rdfa=key == "property") if properties else None
        is_scope = "typeof" in attributes or "itemscope" in attributes
        if not is_scope and owner is None:
            return
        self._properties += 1
        if is_scope and opened is not None:
            types = attributes.get("typeof") or attributes.get("itemtype") or ""
            item: Node = {"@type": [_local(part) for part in types.split()[:5]]}
            identity = attributes.get("itemid") or attributes.get("resource")
            if identity:
                item["@id"] = identity
            opened.item, opened.is_rdfa = item, "typeof" in attributes
            if owner is not None:
                _give(owner, properties, item)
            else:
                (self._markup.rdfa if opened.is_rdfa else self._markup.microdata).append(item)
            return
        assert owner is not None
        value = attributes.get("content") or attributes.get(_URL_ATTRIBUTE.get(name, ""))
        if name == "a" and value is not None and not properties[0].lower().endswith(_URL_NAMES):
            value = value if value.startswith(("mailto:", "tel:")) else None
        if value is not None:
            _give(owner, properties, value[:VALUE_CHARS_MAX])
        elif opened is not None:
            opened.owner, opened.properties = owner, properties

    def _owner(self, *, is_rdfa: bool) -> Node | None:
        for element in reversed(self._stack):
            if element.item is not None and element.is_rdfa == is_rdfa:
                return element.item
        return None

    def _close(self, name: str) -> None:
        if self._too_deep.get(name):
            self._too_deep[name] -= 1
        elif self._names.get(name):
            while self._stack[-1].name != name:
                self._pop()
            self._pop()
        if name in _LINE_BREAKS and self._pieces and self._pieces[-1] != "\n":
            self._pieces.append("\n")
        elif name in ("a", "button", "label") and self._pieces:
            self._pieces.append(" ")

    def _pop(self) -> None:
        element = self._stack.pop()
        self._names[element.name] -= 1
        if element.owner is not None:
            value = self._text_since(element, VALUE_CHARS_MAX)
            _give(element.owner, element.properties, value)
        if element.anchor is not None and len(self._markup.anchors) < ANCHORS_MAX:
            href, rel = element.anchor.get("href", ""), element.anchor.get("rel", "")
            text = self._text_since(element, 200) or element.anchor.get("aria-label", "")
            if href:
                anchor = Anchor(href[:2_100], text[:200], rel[:100].lower(), element.in_footer)
                self._markup.anchors.append(anchor)
        if element.name == "address" and len(self._markup.addresses) < 10:
            self._markup.addresses.append(self._text_since(element, 400))

    def _text_since(self, element: _Open, chars_max: int) -> str:
        pieces = self._pieces[element.text_from : element.text_from + 200]
        return "".join(pieces)[:chars_max].strip()


_URL_NAMES: Final = ("url", "sameas", "logo", "image", "item")


def _give(owner: Node, properties: tuple[str, ...], value: Any) -> None:
    for name in properties:
        owner.setdefault(name, []).append(value)


def _local(name: str) -> str:
    """Return `Organization` of `https://schema.org/Organization` and `schema:Organization`."""
    return re.split(r"[/#:]", name[:200])[-1]


def _attributes(raw: str) -> Attributes:
    found: Attributes = {}
    for name, double, single, bare in _ATTRIBUTE.findall(raw[:ATTRIBUTES_CHARS_MAX]):
        if len(found) == 60:
            break
        found.setdefault(name.lower(), unescape(double or single or bare))
    return found
