import pytest

from enrichd.ctl.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("1w", 604_800),
        ("1d2h3m4s5ms", 93_784.005),
        (" 5m ", 300),
        ("0", 0),
        ("0s", 0),
    ],
)
def test_a_duration_is_read_in_seconds(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("5", "has no unit; write 5s, 5m, 5h or 5d"),
        ("1.5", "has no unit"),
        ("", "is empty"),
        ("  ", "is empty"),
        ("5 minutes", "write it like"),
        ("5M", "write it like"),
        ("-5m", "write it like"),
        ("5m1h", "write it like"),
        ("5m5m", "write it like"),
        ("5ms5s", "write it like"),
        ("m", "write it like"),
        ("1e3s", "write it like"),
        ("infs", "write it like"),
        ("٥m", "write it like"),
        ("999999999999w", "more than 100 years"),
        ("9" * 5000 + "s", "write it like"),
    ],
)
def test_what_is_no_duration_is_refused_with_what_would_be(text, told):
    with pytest.raises(ValueError, match=told):
        parse_duration(text)
