import pytest

from enrichd.ctl.terminal import safe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;ZXZpbA==\x07", r"\x1b]52;c;ZXZpbA==\x07"),
        (
            "\x1b]8;;https://evil.example\x1b\\click",
            r"\x1b]8;;https://evil.example\x1b" + "\\click",
        ),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x1b[2J\x1b[1;1H", r"\x1b[2J\x1b[1;1H"),
        ("\x9b2J", r"\x9b2J"),
        ("done\rfail", r"done\rfail"),
        ("a\x00\x08\x7fb", r"a\x00\x08\x7fb"),
        ("abc\u202egpj.exe", r"abc\u202egpj.exe"),
        ("\u2066x\u2069", r"\u2066x\u2069"),
        ("zero\u200bwidth\u200d\ufeff", r"zero\u200bwidth\u200d\ufeff"),
        ("line\u2028sep\u2029\x85", r"line\u2028sep\u2029\x85"),
        ("\udcff", r"\udcff"),
        ("\U000e0041", r"\U000e0041"),
        ("filler\u3164", r"filler\u3164"),
        ("a\tb\nc", r"a\tb\nc"),
    ],
)
def test_whatever_a_terminal_could_act_on_is_shown(text, shown):
    assert safe(text) == shown
    assert safe(text).isprintable()


@pytest.mark.parametrize("text", ["", "Łódź – Müller & Söhne", "株式会社", "🦆", "a b"])
def test_readable_text_stays_as_it_is(text):
    assert safe(text) == text


def test_a_block_keeps_its_lines_and_nothing_else():
    assert safe("one\r\ntwo\x1b[2J\n", block=True) == "one\\r\ntwo\\x1b[2J\n"
