"""Which column of a lead list holds which field of a lead.

The user's own `--map` comes first, then the column's name, then what its cells look like. A name
that content contradicts ("Email" over a column of yes and no) is not believed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence

from enrichd.ctl.sheet_aliases import (
    CONTACT_WORDS,
    LEAD_FIELDS,
    NAME_WORDS,
    header_key,
    is_known_header,
    known_field,
    word_set,
)
from enrichd.ctl.sheet_leads import EMAIL, clean_domain, clean_linkedin, clean_text
from enrichd.errors import FieldProblem, InvalidFile

PHONE = re.compile(r"\+?[\d\s()./-]{6,25}")
DATE = re.compile(r"\d{1,4}([./-])\d{1,2}\1\d{1,4}.*")
LEGAL_FORM = re.compile(
    r"\b(?:gmbh|ag|kg|ohg|ug|se|e\.\s?v\.|inc|corp|co|llc|llp|ltd|limited|plc|sas|sarl|sa|s\.a\.|srl"
    r"|s\.r\.l\.|spa|s\.p\.a\.|sl|s\.l\.|lda|bv|b\.v\.|nv|sp\.? z o\.?\s?o|ab|as|asa|aps|oy|oyj"
    r"|s\.r\.o\.|a\.s\.|kft|zrt|nyrt|d\.o\.o\.|company|group|gruppe|holding)\b\.?",
    re.IGNORECASE,
)
SALUTATIONS = word_set(
    """mr mrs ms miss mx dr prof herr frau hr fr m mme mlle sr sra srta sig signora dott dipl ing
    pan pani dhr mevr"""
)
ROWS_CHECKED_MAX = 200
CELL_CHARS_CHECKED_MAX = 500
LIKELY = 0.6

Columns = dict[str, int]
Cells = Sequence[str]


def recognise(
    header: Sequence[str], rows: Sequence[Cells], mapping: Mapping[str, str], *, has_header: bool
) -> Columns:
    """Map lead fields to column indexes, from the header and some first rows.

    `mapping` is field → column's name (or its number from 1); an empty name leaves the field out.
    Raises InvalidFile for a field or a column that does not exist.
    """
    columns, left_out = mapped_columns(header, mapping)
    cells = [_column(rows, index) for index in range(len(header))]
    free = [index for index in range(len(header)) if index not in columns.values()]
    found: Columns = {}
    if has_header:
        found = _by_name({index: header[index] for index in free}, cells, taken=columns)
    for field, index in (columns | found | _by_content(free, cells, columns | found)).items():
        if field not in left_out:
            columns.setdefault(field, index)
    return {field: columns[field] for field in LEAD_FIELDS if field in columns}


def mapped_columns(
    header: Sequence[str], mapping: Mapping[str, str]
) -> tuple[Columns, frozenset[str]]:
    """Resolve `--map`: the columns it names, and the fields it leaves out."""
    columns: Columns = {}
    left_out = set()
    for asked, name in mapping.items():
        field = _lead_field(asked)
        if name == "":
            left_out.add(field)
        else:
            columns[field] = _column_index(header, asked, name)
    return columns, frozenset(left_out)


def _lead_field(asked: str) -> str:
    by_key = {header_key(field): field for field in LEAD_FIELDS}
    if field := by_key.get(header_key(asked)):
        return field
    # `--map company=…` and `--map website=…` say clearly enough what is meant.
    if known := known_field(asked):
        return known[0]
    if header_key(asked) in NAME_WORDS:
        return "fullName"
    close = difflib.get_close_matches(header_key(asked), by_key, n=1, cutoff=0.5)
    raise InvalidFile(
        f"A lead has no field {asked!r}"
        + (f"; did you mean {by_key[close[0]]}?" if close else "."),
        fields=[FieldProblem(f"map.{asked}", "no such field")],
        hint=f"The fields are {', '.join(LEAD_FIELDS)}.",
    )


def _column_index(header: Sequence[str], asked: str, name: str) -> int:
    if name in header:
        return list(header).index(name)
    by_key = {header_key(column): index for index, column in reversed(list(enumerate(header)))}
    if header_key(name) and (index := by_key.get(header_key(name))) is not None:
        return index
    if name.isascii() and name.isdigit() and 1 <= int(name[:9]) <= len(header):
        return int(name) - 1
    close = difflib.get_close_matches(header_key(name), by_key, n=3, cutoff=0.5)
    raise InvalidFile(
        f"The file has no column {name!r}"
        + (
            f"; did you mean {' or '.join(header[by_key[key]] for key in close)}?" if close else "."
        ),
        fields=[FieldProblem(f"map.{asked}", f"no column {name!r}")],
        hint=f"Its columns are {', '.join(header[:40])}.",
    )


def _by_name(names: Mapping[int, str], cells: Sequence[Cells], taken: Columns) -> Columns:
    """Take the best-named believable column for each field, then settle the words that depend."""
    best: dict[str, tuple[int, int]] = {}
    for index, name in names.items():
        # "Name" and "Contact" wait until the other columns are known.
        if header_key(name) in NAME_WORDS or header_key(name) in CONTACT_WORDS:
            continue
        known = known_field(name)
        if known is None or known[0] in taken or not _believable(known[0], cells[index]):
            continue
        field, rank = known
        if field not in best or (rank, index) < best[field]:
            best[field] = (rank, index)
    found = {field: index for field, (_, index) in best.items()}
    for index, name in names.items():
        key = header_key(name)
        field_of = _contact_field if key in CONTACT_WORDS else _name_field
        if key in NAME_WORDS or key in CONTACT_WORDS:
            found.setdefault(field_of(key, cells[index], taken | found, cells), index)
    return found


def _name_field(key: str, values: Cells, known: Columns, cells: Sequence[Cells]) -> str:
    has_first, has_last = "firstName" in known, "lastName" in known
    half = NAME_WORDS[key]
    if has_first and not has_last:
        return "lastName"
    if has_last and not has_first:
        return "firstName" if half == "firstName" else "fullName"
    if "companyName" in known:
        return "fullName"
    if has_first and has_last:
        return "companyName"
    emails = cells[known["email"]] if "email" in known else ()
    if _share(values, LEGAL_FORM.search) >= 0.2:
        return "companyName"
    if any(emails) and _named_in(values, emails) < 0.3 and _of_domain(values, emails) > 0.3:
        return "companyName"
    if not any(emails) and "domain" in known and not {"title", "linkedinUrl"} & known.keys():
        return "companyName"
    return "fullName"


def _contact_field(key: str, values: Cells, known: Columns, cells: Sequence[Cells]) -> str:
    if _share(values, EMAIL.fullmatch) >= LIKELY:
        return "email"
    if _share(values, PHONE.fullmatch) >= LIKELY:
        return "phone"
    if _share(values, LEGAL_FORM.search) >= 0.3 and "companyName" not in known:
        return "companyName"
    return "fullName"


def _by_content(free: Sequence[int], cells: Sequence[Cells], known: Columns) -> Columns:
    """Find columns for the fields still without one by what their cells look like."""
    found: Columns = {}
    left = [index for index in free if index not in known.values() and any(cells[index])]

    def take(field: str, test: Callable[[str], object], share: float = LIKELY) -> None:
        fits = [index for index in left if _share(cells[index], test) >= share]
        if fits and field not in known:
            found[field] = fits[0]
            left.remove(fits[0])

    take("email", EMAIL.fullmatch)
    take("linkedinUrl", clean_linkedin)
    take("domain", lambda value: "@" not in value and clean_domain(value))
    take("phone", _is_phone)
    if "companyName" not in known:
        take("companyName", LEGAL_FORM.search, 0.3)
    emails = cells[(known | found)["email"]] if "email" in known | found else ()
    if any(emails) and not {"firstName", "lastName", "fullName"} & known.keys():
        _take_names(left, cells, emails, found)
    if any(emails) and "companyName" not in known | found:
        fits = [index for index in left if _of_domain(cells[index], emails) >= LIKELY]
        if fits:
            found["companyName"] = fits[0]
    return found


def _take_names(left: list[int], cells: Sequence[Cells], emails: Cells, found: Columns) -> None:
    """Find the columns whose words stand before the @: one with two words, or two with one."""
    fits = [index for index in left if _named_in(cells[index], emails) >= LIKELY]
    whole = [index for index in fits if _share(cells[index], lambda value: " " in value) > 0.5]
    fields = (
        {"fullName": whole[0]}
        if whole
        else dict(zip(("firstName", "lastName"), fits, strict=False))
    )
    for field, index in fields.items():
        found[field] = index
        left.remove(index)


def _believable(field: str, values: Cells) -> bool:
    """Tell if the cells can be that field; without three of them the name alone decides."""
    if sum(map(bool, values)) < 3:
        return True
    match field:
        case "email":
            return _share(values, lambda value: "@" in value) > 0.1
        case "linkedinUrl":
            return _share(values, clean_linkedin) > 0.1
        case "domain":
            return _share(values, clean_domain) > 0.1
        case "title":
            return _share(values, lambda value: header_key(value) in SALUTATIONS) < 0.5
        case _:
            return True


def name_by_content(rows: Sequence[Cells], width: int) -> list[str]:
    """Name the columns of a file without a header: `email`, `companyName`, `column_4`."""
    names = [f"column_{index + 1}" for index in range(width)]
    found = _by_content(range(width), [_column(rows, index) for index in range(width)], {})
    for field, index in found.items():
        names[index] = field
    return names


def looks_like_header(first: Cells) -> bool:
    """Tell a header from a row of data: a known name, or at least no address in it."""
    if any(is_known_header(cell) for cell in first):
        return True
    return not any(EMAIL.fullmatch(cell.strip()) or _is_site(cell) for cell in first)


def _is_phone(value: str) -> bool:
    is_number = PHONE.fullmatch(value) and value.startswith(("+", "0", "("))
    return bool(is_number) and not DATE.fullmatch(value)


def _is_site(cell: str) -> bool:
    return "." in cell and " " not in cell.strip() and bool(clean_domain(cell))


def _column(rows: Sequence[Cells], index: int) -> list[str]:
    """Return one column's cleaned cells, aligned with the rows; "" where there is none."""
    cells = (row[index] if index < len(row) else "" for row in rows[:ROWS_CHECKED_MAX])
    return [clean_text(cell[:CELL_CHARS_CHECKED_MAX]) for cell in cells]


def _share(values: Cells, test: Callable[[str], object]) -> float:
    """Return the share, 0 to 1, of the cells with text that pass a test."""
    filled = [value for value in values if value]
    return sum(bool(test(value)) for value in filled) / len(filled) if filled else 0.0


def _named_in(values: Cells, emails: Cells) -> float:
    """Return the share of rows where a word of the cell stands before the @ of the address."""
    hits = [
        any(len(word) > 1 and word in header_key(email.split("@")[0]) for word in _words(value))
        for value, email in zip(values, emails, strict=True)
        if value and email
    ]
    return sum(hits) / len(hits) if hits else 0.0


def _of_domain(values: Cells, emails: Cells) -> float:
    """Return the share of rows where the cell's first word stands behind the @ of the address."""
    hits = [
        any(
            len(word) > 2 and word in header_key(email.split("@")[-1]) for word in _words(value)[:1]
        )
        for value, email in zip(values, emails, strict=True)
        if value and email
    ]
    return sum(hits) / len(hits) if hits else 0.0


def _words(value: str) -> list[str]:
    return [header_key(word) for word in value.split()]
