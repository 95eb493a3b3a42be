"""A file of any encoding as physical lines of text, in bounded memory.

The first block is read once and kept: the encoding, the format and the delimiter are decided from
it, so a pipe that cannot be rewound is read like a file. Nothing else is held but one block and the
unfinished line at its end.
"""

from __future__ import annotations

import codecs
import difflib
import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from charset_normalizer import from_bytes

from enrichd.errors import InvalidFile

BLOCK_BYTES = 64 * 1024
LINE_CHARS_MAX = 1024 * 1024
"""A longer line is handed out in pieces without a line end, each about this long."""

NEIGHBOURS_READ_MAX = 2000
LEGACY_SAMPLE_BYTES_MAX = 8 * 1024

LOST_BYTE = re.compile("[\ud800-\udfff]")
"""Marks a byte that could not be decoded: real text holds no lone surrogate."""

BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# Eight-bit encodings that spreadsheets still write, each with the letters its languages use. When
# two draw, as they do for "Jürgen", the first one wins: it is the more common.
PUNCTUATION = "€–—‘’“”„«»°…"
WESTERN = "äöüßéèêëàâçñóòíìúùáåæøõãîïôûœÄÖÜÉÈÊÀÂÇÑÓÍÚÁÅÆØÔÎ" + PUNCTUATION
CENTRAL = "ąćęłńóśźżĄĆĘŁŃŚŹŻáčďéěíňřšťúůýžÁČĎÉÍŇŘŠŤÚŮŽőűöüäŐŰÖÜÄßăâîşţĂÂÎŞŢôĺľ" + PUNCTUATION
LEGACY_LETTERS = {
    "cp1252": frozenset(WESTERN),
    "mac_roman": frozenset(WESTERN),
    "cp1250": frozenset(CENTRAL),
    "iso8859_2": frozenset(CENTRAL),
    "cp1254": frozenset(WESTERN + "ğışĞİŞ"),
}
LEGACY_LABELS = {"mac_roman": "Mac Roman", "iso8859_2": "ISO 8859-2", "koi8_r": "KOI8-R"}
# Words made of nothing but bytes above 127 are Greek or Cyrillic.
OTHER_ALPHABETS = ["cp1251", "cp1253", "koi8_r"]
DENSE_WORD = re.compile(rb"[\x80-\xff]{3,}")

SPREADSHEET = "Open it in the spreadsheet program and save it as CSV (UTF-8), then try again."
MAGIC = (
    (b"PK\x03\x04", "an Excel, LibreOffice or zip file", SPREADSHEET),
    (b"\xd0\xcf\x11\xe0", "an old Excel file (.xls)", SPREADSHEET),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it first: gunzip -c FILE | enrichctl enrich -"),
    (b"BZh", "compressed with bzip2", "Unpack it first."),
    (b"\xfd7zXZ", "compressed with xz", "Unpack it first."),
    (b"7z\xbc\xaf", "a 7z archive", "Unpack it first."),
    (b"%PDF", "a PDF", "Export the table as CSV from where it was made."),
    (b"SQLite format 3", "an SQLite database", "Export the table as CSV first."),
    (b"PAR1", "a Parquet file", "Convert it to CSV or to JSON lines first."),
)
MARKUP = re.compile(rb"\A\s*<(?:\?xml|!doctype|html|table|head|meta)", re.IGNORECASE)


def open_bytes(path: str) -> BinaryIO:
    """Open a file, or standard input for `-`; raise InvalidFile if it cannot be read."""
    if path == "-":
        return _standard_input()
    try:
        stream = open(path, "rb")  # noqa: SIM115 - the sheet closes it
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise InvalidFile(f"{path!r} cannot be the name of a file.") from error
    return stream


def _standard_input() -> BinaryIO:
    try:
        # An object of its own: the interpreter closes sys.stdin at its end, and aborts if a thread
        # is still waiting in it for a silent pipe.
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except (OSError, AttributeError):  # something else took the place of sys.stdin, or it is closed
        return sys.stdin.buffer


def _unreadable(path: str, error: OSError) -> InvalidFile:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return InvalidFile(f"There is no file {path}.", hint=_neighbour_hint(path))
        case errno.EISDIR:
            return InvalidFile(f"{path} is a directory.", hint="Name the file inside it.")
        case errno.EACCES | errno.EPERM:
            return InvalidFile(f"You have no permission to read {path}.", hint=f"Try: ls -l {path}")
        case _:
            return InvalidFile(f"{path} cannot be read: {error.strerror or error}.")


def _neighbour_hint(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        with os.scandir(folder or ".") as entries:
            names = [entry.name for entry in islice(entries, NEIGHBOURS_READ_MAX)]
    except OSError:
        return f"The folder {folder} does not exist or cannot be listed."
    by_lower = {neighbour.lower(): neighbour for neighbour in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)
    if close:
        found = ", ".join(os.path.join(folder, by_lower[match]) for match in close)
        return f"Did you mean {found}?"
    return "Give the path of a CSV or JSON lines file, or - to read standard input."


@dataclass(frozen=True, slots=True)
class Encoding:
    """How bytes become text."""

    codec: str
    label: str
    """For people: `UTF-8`, `Windows-1252 (assumed)`."""
    is_assumed: bool = False

    @property
    def errors(self) -> str:
        """How a byte that does not fit is kept: always as a lone surrogate."""
        wide = self.codec.startswith(("utf-16", "utf-32"))
        return "surrogatepass" if wide else "surrogateescape"


UTF_8 = Encoding("utf-8", "UTF-8")
# Until the first byte above 127 every candidate reads the same, so the choice can wait for it.
ASCII = Encoding("ascii", "UTF-8")


class TextSource:
    """The text of a byte stream: its first block for sniffing, then all of it as lines."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self.name = name
        try:
            self._first = stream.read(BLOCK_BYTES)
        except OSError as error:
            raise _unreadable(name, error) from error
        _refuse_binary(self._first, name)
        self.encoding = guess_encoding(self._first)
        self.has_bom = any(self._first.startswith(bom) for bom, _ in BOMS)
        decoder = codecs.getincrementaldecoder(self.encoding.codec)(self.encoding.errors)
        self.sample = decoder.decode(self._first)
        """The first block as text; its last line may be cut."""
        self.sample_is_all = len(self._first) < BLOCK_BYTES

    def lines(self) -> Iterator[str]:
        """Yield each physical line with its end (LF, CRLF or CR); only the last one may lack it.

        A line above LINE_CHARS_MAX comes in several pieces. The stream is read once.
        """
        rest = ""
        for text in self._texts():
            # newline="" splits at LF, CRLF and CR and keeps them; str.splitlines would also split
            # at U+2028 and others.
            lines = list(io.StringIO(rest + text, newline=""))
            # A CR at the end of a block may be the first half of CRLF, so it waits too.
            rest = lines.pop() if lines and not lines[-1].endswith("\n") else ""
            yield from lines
            if len(rest) > LINE_CHARS_MAX and not rest.endswith("\r"):
                yield rest
                rest = ""
        if rest:
            yield from io.StringIO(rest, newline="")

    def _texts(self) -> Iterator[str]:
        block, decoder = self._first, None
        while block:
            if decoder is None:
                if self.encoding is ASCII and not block.isascii():
                    self.encoding = _beyond_ascii(block)
                decoder = codecs.getincrementaldecoder(self.encoding.codec)(self.encoding.errors)
            yield decoder.decode(block)
            if self.encoding is ASCII:
                decoder = None
            block = self._read()
        if decoder is None:
            return
        try:
            yield decoder.decode(b"", final=True)
        except UnicodeDecodeError:  # half a letter at the very end, of UTF-16
            yield "\udcff"

    def _read(self) -> bytes:
        try:
            read = getattr(self._stream, "read1", self._stream.read)
            block: bytes = read(BLOCK_BYTES)
        except OSError as error:
            raise InvalidFile(f"Reading {self.name} broke off: {error.strerror}.") from error
        return block


def guess_encoding(block: bytes) -> Encoding:
    """Decide by byte order mark, by UTF-16's zero bytes, by UTF-8's rules, else by letters."""
    for bom, codec in BOMS:
        if block.startswith(bom):
            return Encoding(codec, codec.removesuffix("-sig").upper() + " with a byte order mark")
    if wide := _utf_16_by_zero_bytes(block):
        return Encoding(wide, wide.upper() + " (assumed)", is_assumed=True)
    return ASCII if block.isascii() else _beyond_ascii(block)


def _utf_16_by_zero_bytes(block: bytes) -> str | None:
    # Latin text as UTF-16 has a zero in nearly every second byte; UTF-8 text has none.
    pairs = len(block[:4096]) // 2
    if pairs < 2:
        return None
    first_zeros, second_zeros = (block[at : pairs * 2 : 2].count(0) / pairs for at in (0, 1))
    if second_zeros > 0.6 and first_zeros < 0.1:
        return "utf-16-le"
    if first_zeros > 0.6 and second_zeros < 0.1:
        return "utf-16-be"
    return None


def _beyond_ascii(block: bytes) -> Encoding:
    text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(block)
    lost = len(LOST_BYTE.findall(text))
    if lost == 0:
        return UTF_8
    # Legacy letters are hardly ever valid UTF-8 by chance, so a block with as many valid ones is
    # UTF-8 with damage.
    if sum(not letter.isascii() for letter in text) - lost >= lost:
        return UTF_8
    codec = _guess_legacy(block)
    label = LEGACY_LABELS.get(codec, codec.replace("cp", "Windows-"))
    return Encoding(codec, f"{label} (assumed)", is_assumed=True)


def _guess_legacy(block: bytes) -> str:
    # Only the lines with telling bytes: in a mostly English table they drown among the others.
    lines = (line for line in block.splitlines() if not line.isascii())
    telling = b"\n".join(lines)[:LEGACY_SAMPLE_BYTES_MAX]
    high = telling.translate(None, bytes(range(128)))
    if sum(map(len, DENSE_WORD.findall(telling))) > len(high) / 2:
        best = from_bytes(telling, cp_isolation=OTHER_ALPHABETS).best()
        return best.encoding if best else "cp1252"
    # charset-normalizer alone takes "Jürgen" for Windows-1250 and "Łódź" for 1252: with a few names
    # to go by, asking whose letters they are is the better rule.
    return max(LEGACY_LETTERS, key=lambda codec: _familiar_letters(high, codec))


def _familiar_letters(high: bytes, codec: str) -> int:
    letters = LEGACY_LETTERS[codec]
    return sum(1 if letter in letters else -2 for letter in high.decode(codec, "replace"))


def without_lost_bytes(text: str) -> str:
    """Return the text with each byte that could not be decoded read as Windows-1252.

    Such a byte is nearly always a row pasted from another program, so this is what its author saw.
    """
    return LOST_BYTE.sub(_as_western, text)


def _as_western(match: re.Match[str]) -> str:
    code = ord(match.group()) - 0xDC00
    return bytes([code]).decode("cp1252", "replace") if 0x80 <= code <= 0xFF else "\ufffd"


def _refuse_binary(block: bytes, name: str) -> None:
    for magic, what, hint in MAGIC:
        if block.startswith(magic):
            raise InvalidFile(f"{name} is not a CSV file: it is {what}.", hint=hint)
    if MARKUP.match(block):
        raise InvalidFile(f"{name} is not a CSV file: it is HTML or XML.", hint=SPREADSHEET)
    if any(block.startswith(bom) for bom, _ in BOMS) or _utf_16_by_zero_bytes(block):
        return
    controls = len(block) - len(block.translate(None, bytes([*range(9), *range(14, 27)])))
    # A few stray controls are damage, many are no text, unless everything else is valid text.
    if controls > (0.3 if guess_encoding(block) in (ASCII, UTF_8) else 0.05) * len(block):
        raise InvalidFile(f"{name} is not a text file.", hint=SPREADSHEET)
