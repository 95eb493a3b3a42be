"""The provider that the documentation shows, run as it stands there, and one that is installed."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from enrichd.domain.lead_results import LeadResult
from enrichd.domain.leads import lead_from
from enrichd.domain.payloads import EnrichmentType, LeadInput
from enrichd.errors import InvalidSetting, ProviderThrottled
from enrichd.handlers.registry import load_plugins
from enrichd.providers.base import REGISTERED, Operation
from enrichd.providers.calls import Calls
from enrichd.providers.client import Connections, common_limits
from enrichd.providers.dns import Resolver
from enrichd.providers.waterfall import Providers, Search, enrich_lead
from enrichd.providers.web import WebFetcher

DOCUMENT = Path(__file__).parents[2] / "docs" / "providers.md"
KEY = "acme-key-1"
LINES_MAX = 60


def documented_example() -> str:
    """Return the one provider that the document shows in full."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (example,) = [block for block in blocks if "@provider(" in block]
    return str(example)


@pytest.fixture
def registered() -> Iterator[None]:
    """Forget what a test registers."""
    known, modules = dict(REGISTERED), set(sys.modules)
    yield
    REGISTERED.clear()
    REGISTERED.update(known)
    for name in set(sys.modules) - modules:
        if name.startswith("acme"):
            del sys.modules[name]


@pytest.fixture
def site(registered: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that Python imports from."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def install(site: Path) -> Callable[[str, str], None]:
    """Give `install(source, value)`: put a package with an entry point where pip would."""

    def put(source: str, value: str) -> None:
        (site / "acme_enrichd").mkdir()
        (site / "acme_enrichd" / "__init__.py").touch()
        (site / "acme_enrichd" / "source.py").write_text(source)
        info = site / "acme_enrichd-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-enrichd\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[enrichd.providers]\nacme = {value}\n")

    return put


class Acme:
    """The documented provider's server: two credits a person, and it knows one."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status = 200

    async def people(self, request: web.Request) -> web.Response:
        self.asked.append(request.query["email"])
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"error": "key"}, status=401)
        if self.status != 200:
            return web.json_response({}, status=self.status, headers={"Retry-After": "7"})
        if request.query["email"] != "ada@acme.example":
            return web.json_response({"error": "nobody"}, status=404)
        return web.json_response(
            {
                "name": "Ada Quill",
                "job": "Head of Ops",
                "employer": "Acme",
                "web": ["https://linkedin.com/in/adaq"],
                "shoeSize": 38,
            }
        )


@pytest.fixture
async def acme() -> AsyncIterator[tuple[Acme, str]]:
    server = Acme()
    app = web.Application()
    app.router.add_get("/v1/people", server.people)
    async with TestServer(app) as running:
        yield server, str(running.make_url("/v1"))


def providers_at(url: str, key: str | None = KEY) -> Providers:
    """Return providers whose Acme is at a URL; no other source answers."""

    def settings_of(name: str):
        chosen = {"base_url": url if name == "acme" else "http://127.0.0.1:9"}
        secret = {"api_key": SecretStr(key) if key and name == "acme" else None}
        return common_limits(name).model_copy(update=chosen | secret)

    dns = ("127.0.0.1:9",)
    resolver, fetcher = Resolver(dns, timeout_s=2.0), WebFetcher(nameservers=dns)
    return Providers(Connections(resolver=resolver, fetcher=fetcher, settings_of=settings_of))


async def enrich(url: str, *, email: str = "ada@acme.example", key: str | None = KEY) -> LeadResult:
    async with providers_at(url, key) as providers:
        result = await enrich_lead(
            lead_from(LeadInput(email=email), "1"),
            Search((EnrichmentType.PERSON,), ("acme",)),
            Calls(providers, workspace_id="default"),
        )
    assert isinstance(result, LeadResult)
    return result


def test_the_example_is_short():
    assert len(documented_example().splitlines()) < LINES_MAX


async def test_the_documented_provider_answers_a_job(site, acme):
    server, url = acme
    (site / "acme.py").write_text(documented_example())
    load_plugins(["acme"])

    result = await enrich(url)

    assert result.outcome == "complete"
    assert result.person is not None
    assert result.person.value_at("fullName") == "Ada Quill"
    assert result.person.value_at("company.name") == "Acme"
    assert result.person.value_at("socialProfiles")[0]["url"] == "https://www.linkedin.com/in/adaq"
    assert result.person.provenance["title"]["provider"] == "acme"
    assert result.person.provenance["title"]["confidence"] == pytest.approx(0.72)
    paid = [call for call in result.calls if call.provider == "acme"]
    assert [(call.outcome, call.cost_credits) for call in paid] == [("answered", 2)]
    assert server.asked == ["ada@acme.example"]


async def test_the_documented_provider_knows_nobody_and_needs_a_key(site, acme):
    server, url = acme
    (site / "acme.py").write_text(documented_example())
    load_plugins(["acme"])

    nobody = await enrich(url, email="bela@acme.example")
    denied = await enrich(url, key="wrong")
    keyless = await enrich(url, key=None)

    outcomes = [
        [(call.outcome, call.skip_reason) for call in result.calls if call.provider == "acme"]
        for result in (nobody, denied, keyless)
    ]
    assert outcomes == [[("noMatch", None)], [("denied", None)], [("skipped", "no_api_key")]]
    assert len(server.asked) == 2


async def test_the_documented_provider_is_waited_for(site, acme):
    server, url = acme
    (site / "acme.py").write_text(documented_example())
    load_plugins(["acme"])
    server.status = 429

    with pytest.raises(ProviderThrottled) as caught:
        await enrich(url)
    assert caught.value.retry_after_s == 7


@pytest.mark.parametrize("value", ["acme_enrichd.source", "acme_enrichd.source:Acme"])
async def test_an_installed_package_brings_its_provider(install, acme, value):
    install(documented_example(), value)
    load_plugins([])

    contract = REGISTERED["acme"].contract
    assert contract is not None
    assert contract.credits[Operation.ENRICH_PERSON] == 2
    assert (await enrich(acme[1])).outcome == "complete"


def test_loading_an_installed_provider_twice_is_no_harm(install):
    install(documented_example(), "acme_enrichd.source:Acme")
    load_plugins([])
    load_plugins(["acme_enrichd.source"])

    assert "acme" in REGISTERED


@pytest.mark.parametrize(
    ("source", "value", "said"),
    [
        ("raise RuntimeError('no license')", "acme_enrichd.source", "no license"),
        ("", "acme_enrichd.source:Acme", "AttributeError"),
        ("", "acme_enrichd.nowhere", "nowhere"),
    ],
)
def test_a_broken_package_is_named_with_what_is_wrong(install, source, value, said):
    install(source, value)

    with pytest.raises(InvalidSetting, match="acme-enrichd: cannot load its provider 'acme'") as no:
        load_plugins([])
    assert said in str(no.value)
    assert "acme-enrichd" in str(no.value.hint)


def test_a_built_in_provider_cannot_be_replaced_by_chance(install):
    install(
        documented_example().replace('"acme", contract', '"builtin", contract'),
        "acme_enrichd.source",
    )

    with pytest.raises(InvalidSetting, match="'builtin' is registered already"):
        load_plugins([])
