"""Any table that the csv module writes is read back as it was, and written again unchanged."""

import csv
import io

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrichd.ctl.sheet_reading import SheetRow, open_sheet
from enrichd.ctl.sheet_writing import SheetWriter

# Surrogates cannot be written as UTF-8, and a file of mostly controls is refused as no text. A lone
# CR is left out only because csv.writer of Python 3.11 does not quote it between LF line ends.
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
TRICKY = st.sampled_from(
    [
        '"',
        '""',
        "a,b",
        "x;y",
        "\t",
        "|",
        "\n",
        "\r\n",
        " a ",
        "=1+1",
        "'",
        ",",
        "é\u2028",
        "\0",
        "-1,5",
    ]
)
HEADER = ["email", "company", "Notiz", "notiz", "city"]
TABLE = st.lists(
    st.lists(st.one_of(TEXT, TRICKY), min_size=len(HEADER) - 1, max_size=len(HEADER) - 1),
    max_size=8,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    table=TABLE,
    delimiter=st.sampled_from(",;\t|"),
    line_end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    codec=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_a_table_comes_back_as_it_was(tmp_path, table, delimiter, line_end, quoting, codec):
    rows = [[f"p{number}@example.com", *cells] for number, cells in enumerate(table)]
    # csv.writer of Python 3.11 leaves "\r\n" unquoted between LF line ends, too.
    if line_end == "\n":
        rows = [[cell.replace("\r", "") for cell in row] for row in rows]
    written = io.StringIO()
    writer = csv.writer(written, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    writer.writerows([HEADER, *rows])
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(written.getvalue().encode(codec))

    with (
        open_sheet(str(source)) as sheet,
        SheetWriter(str(target), sheet, ["email"], raw=True) as out,
    ):
        found = list(sheet)
        for row in found:
            out.write(row, None)
        out.commit()

    assert [row.cells for row in found] == rows
    assert all(isinstance(row, SheetRow) for row in found)
    assert (sheet.header, sheet.delimiter) == (HEADER, delimiter)
    with open(target, newline="", encoding="utf-8-sig") as file:
        again = list(csv.reader(file, delimiter=delimiter))
    assert again == [[*HEADER, "enriched_email"], *([*row, ""] for row in rows)]
