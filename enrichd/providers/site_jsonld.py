"""JSON-LD as websites write it, and which of its items is the company itself.

What is called JSON-LD is often not JSON: comments, trailing commas, bare line breaks in strings,
escaped quotes. Each block is read by itself, strictly first and leniently then; one that stays
unreadable costs only itself. Items with the same `@id` in different blocks are one item.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import orjson

from enrichd.domain.web_links import registrable_domain
from enrichd.providers.site_text import unescape

NODES_MAX: Final = 5_000
"""Looked at on one page; a shop lists its products, a company is among the first items."""
NESTING_MAX: Final = 8
LENIENT_CHARS_MAX: Final = 1_000_000

Node = dict[str, Any]

_OPENING = re.compile(r"[\s\ufeff]*(?:<!--|(?://|/\*)?\s*<!\[CDATA\[\s*(?:\*/)?)")
# A string is one match whatever is in it, so nothing inside of strings is touched. Every
# alternative that begins also ends, at the latest with the text: linear on any input.
_JUNK = re.compile(
    r"(?P<string>\"(?:[^\"\\]|\\.)*+(?:\"|\\?\Z))"
    r"|,(?=\s*+[}\]])|//[^\n]*+|/\*(?:.*?\*/|.*\Z)",
    re.DOTALL,
)

# Types schema.org knows below Organization, as far as companies use them on their sites.
_COMPANY_TYPE_WORDS = """
    Organization Airline Brand Consortium Cooperative Corporation EducationalOrganization
    CollegeOrUniversity ElementarySchool HighSchool MiddleSchool Preschool School FundingAgency
    FundingScheme GovernmentOrganization GovernmentOffice LibrarySystem LocalBusiness
    MedicalOrganization MedicalBusiness MedicalClinic Hospital Pharmacy Physician Dentist Optician
    NGO NewsMediaOrganization OnlineBusiness OnlineStore OnlineMarketplace PerformingGroup
    MusicGroup PoliticalParty Project ResearchOrganization ResearchProject SearchRescueOrganization
    SportsOrganization SportsTeam WorkersUnion AnimalShelter ArchiveOrganization
    AutomotiveBusiness AutoBodyShop AutoDealer AutoPartsStore AutoRental AutoRepair AutoWash
    GasStation MotorcycleDealer MotorcycleRepair ChildCare DryCleaningOrLaundry EmergencyService
    EmploymentAgency EntertainmentBusiness AmusementPark ArtGallery Casino ComedyClub MovieTheater
    NightClub FinancialService AccountingService AutomatedTeller BankOrCreditUnion InsuranceAgency
    FoodEstablishment Bakery BarOrPub Brewery CafeOrCoffeeShop Distillery FastFoodRestaurant
    IceCreamShop Restaurant Winery HealthAndBeautyBusiness BeautySalon DaySpa HairSalon HealthClub
    NailSalon TattooParlor HomeAndConstructionBusiness Electrician GeneralContractor HVACBusiness
    HousePainter Locksmith MovingCompany Plumber RoofingContractor InternetCafe LegalService
    Attorney Notary Library LodgingBusiness BedAndBreakfast Campground Hostel Hotel Motel Resort
    VacationRental ProfessionalService RadioStation RealEstateAgent RecyclingCenter SelfStorage
    ShoppingCenter SportsActivityLocation ExerciseGym GolfCourse StadiumOrArena Store BikeStore
    BookStore ClothingStore ComputerStore ConvenienceStore DepartmentStore ElectronicsStore Florist
    FurnitureStore GardenStore GroceryStore HardwareStore HobbyShop HomeGoodsStore JewelryStore
    LiquorStore MensClothingStore MobilePhoneStore MovieRentalStore MusicStore OfficeEquipmentStore
    OutletStore PawnShop PetStore ShoeStore SportingGoodsStore TireShop ToyStore WholesaleStore
    TelevisionStation TouristInformationCenter TravelAgency VeterinaryCare
"""
COMPANY_TYPES: Final = frozenset(_COMPANY_TYPE_WORDS.split())

# Where a page says whose it is. An article's author or a product's brand is somebody else's.
_WHOSE: Final = ("publisher", "mainEntity", "about", "copyrightHolder", "provider", "isPartOf")
# Properties we read whose values may stand elsewhere on the page. Following every reference would
# let a page of circles grow without bound.
_REFERRING: Final = (
    "logo",
    "image",
    "address",
    "location",
    "geo",
    "contactPoint",
    "founder",
    "founders",
    "parentOrganization",
    "numberOfEmployees",
    "areaServed",
)
_USEFUL: Final = ("name", "legalName", "url", "logo", "description", "address", "telephone")


def read_blocks(blocks: Iterable[str]) -> list[Any]:
    """Return the values of all blocks that can be read."""
    values = (_read(block) for block in blocks)
    return [value for value in values if value is not None]


def find_company(values: Sequence[Any], domain: str) -> Node | None:
    """Return the item that is the company behind a registrable domain, references filled in.

    An item whose own `url` is on another domain is not it: shops name their makers, agencies their
    clients. Among the rest the one that is on this domain, then the one that says most, wins.
    """
    top = list(_top_nodes(values))
    by_id = _by_id(top)
    candidates: list[tuple[int, Node]] = []
    for node in top:
        owners = [node] if is_company(node) else []
        for key in _WHOSE:
            for owner in listed(node.get(key))[:5]:
                whose = _resolved(owner, by_id)
                if isinstance(whose, dict):
                    owners += [whose] if is_company(whose) else []
                    deeper = [_resolved(one, by_id) for one in listed(whose.get("publisher"))[:2]]
                    owners += [one for one in deeper if isinstance(one, dict) and is_company(one)]
        for owner in owners:
            merged = _resolved(owner, by_id)
            score = _score(merged, domain)
            if score >= 0:
                candidates.append((score, merged))
    if not candidates:
        return None
    best = max(candidates, key=lambda candidate: candidate[0])[1]
    return _filled(best, by_id)


def is_company(node: Node) -> bool:
    """Say whether an item's type is an organization of some kind."""
    return any(name in COMPANY_TYPES for name in types_of(node))


def types_of(node: Node) -> list[str]:
    """Return an item's type names without their vocabulary."""
    names = [name for name in listed(node.get("@type")) if isinstance(name, str)]
    return [re.split(r"[/#:]", name[:200])[-1] for name in names[:10]]


def first_text(value: Any) -> str | None:
    """Return the first text of a value: itself, in a list, or a `name`, `@value` or `url`."""
    for one in listed(value)[:10]:
        if isinstance(one, str) and one.strip():
            return one
        if isinstance(one, int | float) and not isinstance(one, bool):
            return str(one)
        if isinstance(one, dict):
            for key in ("@value", "name", "url", "contentUrl", "@id"):
                inside = listed(one.get(key))[:1]
                if inside and isinstance(inside[0], str):
                    return inside[0]
    return None


def listed(value: Any) -> list[Any]:
    """Return a list of what may be one, many or none."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _read(block: str) -> Any:
    text = block.strip(" \t\r\n\ufeff")
    for _ in range(3):  # A CDATA mark inside a comment, and the reverse.
        opening = _OPENING.match(text)
        text = text[opening.end() :] if opening else text
    if not text:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _read_leniently(text[:LENIENT_CHARS_MAX])


def _read_leniently(text: str) -> Any:
    if text.lstrip("[{ \n\t").startswith("&quot;"):
        text = unescape(text)
    text = _JUNK.sub(lambda match: match["string"] or "", text)
    # What follows the first value (`-->`, `]]>`, a semicolon, a second value) is not looked at.
    decoder = json.JSONDecoder(strict=False, parse_int=_whole, parse_constant=lambda _: None)
    try:
        value, _ = decoder.raw_decode(text.strip())
    except (ValueError, RecursionError):
        return None
    return value


def _whole(digits: str) -> int | None:
    # Thousands of digits make `int` raise, which would cost the whole block.
    return int(digits) if len(digits) <= 18 else None


def _top_nodes(values: Iterable[Any]) -> Iterator[Node]:
    """Yield items that stand for themselves: of blocks, of lists and of `@graph`s."""
    waiting = list(values)[::-1]
    for _ in range(NODES_MAX):
        if not waiting:
            return
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value[:NODES_MAX][::-1]
        elif isinstance(value, dict):
            if isinstance(value.get("@graph"), list | dict):
                waiting.append(value["@graph"])
            yield value


def _by_id(top: Iterable[Node]) -> dict[str, Node]:
    """Return items by `@id`, those that are described in several places put together."""
    by_id: dict[str, Node] = {}
    waiting: list[tuple[Any, int]] = [(node, 0) for node in top][::-1]
    for _ in range(NODES_MAX):
        if not waiting:
            break
        value, depth = waiting.pop()
        if isinstance(value, list):
            waiting += [(one, depth) for one in value[:200]]
        elif isinstance(value, dict) and depth < NESTING_MAX:
            identity = value.get("@id")
            if isinstance(identity, str) and len(value) > 1:
                known = by_id.get(identity)
                by_id[identity] = value if known is None else {**value, **known}
            waiting += [(one, depth + 1) for one in value.values() if isinstance(one, dict | list)][
                :200
            ]
    return by_id


def _resolved(value: Any, by_id: dict[str, Node]) -> Any:
    if isinstance(value, dict):
        identity = value.get("@id")
        if isinstance(identity, str) and identity in by_id:
            return {**by_id[identity], **value}
        return dict(value)
    return value


def _filled(node: Node, by_id: dict[str, Node]) -> Node:
    """Return an item with the items it refers to in their places, as deep as we read them."""
    whole = dict(_resolved(node, by_id))
    for key in _REFERRING:
        if key in whole:
            whole[key] = [_resolved(one, by_id) for one in listed(whole[key])[:20]]
    for key in ("address", "location", "geo"):
        for one in whole.get(key, ()):
            if isinstance(one, dict):
                one.update(
                    (inner, [_resolved(part, by_id) for part in listed(one[inner])[:5]])
                    for inner in ("address", "addressCountry", "geo")
                    if inner in one
                )
    return whole


def _score(node: Node, domain: str) -> int:
    """Rate how surely an item is the site's owner; below zero it is not."""
    hosts = {
        registrable_domain(text)
        for text in (node.get("@id"), *listed(node.get("url"))[:5])
        if isinstance(text, str) and "//" in text
    } - {None}
    if hosts and domain not in hosts:
        return -1
    said = sum(1 for key in _USEFUL if node.get(key))
    if not said:
        return -1
    brand = 1 if types_of(node) == ["Brand"] else 0
    return said + (20 if hosts else 0) - 5 * brand
