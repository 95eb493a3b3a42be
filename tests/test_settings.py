"""Settings: where values come from, how a wrong one is refused, and that no secret shows."""

from __future__ import annotations

import base64
import copy
import re
import traceback
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError

from enrichd.errors import InvalidSetting
from enrichd.settings import Settings, model, providers, values

CANARY = "canary-5f0c9a7be1d24"
DOCS = Path(__file__).parent.parent / "docs" / "configuration.md"
SECRET_NAMES = [
    *sorted(model.SECRETS),
    "HUNTER_API_KEY",
    "HUNTER_WEBHOOK_SECRET",
    "ACME_API_KEY",
]


def load(directory: Path, overrides: Mapping[str, str] | None = None, /, **env: str) -> Settings:
    return Settings.load(env, directory=directory, overrides=overrides or {})


def refusal(directory: Path, **env: str) -> InvalidSetting:
    with pytest.raises(InvalidSetting) as caught:
        load(directory, **env)
    return caught.value


SEALING_KEY = base64.b64encode(b"k" * 32).decode()


def with_canary(name: str) -> str:
    """A value that the variable accepts and that holds the canary."""
    if name == "ENRICHD_SECRET_KEYS":
        return f"{CANARY}:{SEALING_KEY}"
    return f"postgresql://app:{CANARY}@db/leads" if "DATABASE" in name else CANARY


def test_the_defaults_are_the_contract_s_with_seconds_inside(tmp_path: Path) -> None:
    settings = load(tmp_path)

    assert settings.database_url is None
    assert not settings.is_pooler
    assert settings.warnings == ()
    assert (settings.worker_count, settings.worker_max_count) == (2, 2)
    assert (settings.max_concurrent_jobs, settings.poll_interval_s) == (10, 1.0)
    assert (settings.heartbeat_interval_s, settings.worker_timeout_s) == (5.0, 20.0)
    assert (settings.health_check_interval_s, settings.graceful_shutdown_timeout_s) == (30.0, 30.0)
    assert (settings.retry_base_delay_s, settings.retry_max_delay_s) == (1.0, 300.0)
    assert (settings.retry_backoff_multiplier, settings.job_timeout_s) == (2.0, 300.0)
    assert (settings.worker_max_jobs, settings.worker_max_memory_bytes) == (0, 0)
    assert (settings.health_check_host, settings.health_check_port) == ("127.0.0.1", 3001)
    assert (settings.log_level, settings.log_format, settings.debug) == ("info", "auto", None)
    assert (settings.workspace, settings.plugins, settings.dns_servers) == ("default", (), ())
    hunter = settings.provider("hunter")
    assert (hunter.api_key, hunter.base_url) == (None, None)
    assert hunter.rate_limit_per_second == 10
    assert (hunter.rate_limit_per_minute, hunter.rate_limit_per_hour) == (100, 1000)
    assert {row.source for row in settings.in_force()} == {"default"}


def test_the_strongest_layer_wins_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "enrichd.toml").write_text(
        "worker_count = 3\npoll_interval = 3\nlog_level = 'error'\njob_timeout = 3\n"
        "max_concurrent_jobs = 3\n"
    )
    (tmp_path / "named.toml").write_text(
        "worker_count = 4\npoll_interval = 4\nlog_level = 'debug'\njob_timeout = 4\n"
    )
    (tmp_path / ".env").write_text(
        "# ours\n\nexport WORKER_COUNT=5\nPOLL_INTERVAL='5' # often\nLOG_LEVEL=critical\n"
    )
    env = {"WORKER_COUNT": "6", "POLL_INTERVAL": "6", "ENRICHD_CONFIG": "named.toml"}

    settings = load(tmp_path, {"WORKER_COUNT": "7"}, **env)

    rows = {row.name: (row.value, row.source) for row in settings.in_force() if not row.is_default}
    assert rows == {
        "WORKER_COUNT": ("7", "command line"),
        "POLL_INTERVAL": ("6", "environment"),
        "LOG_LEVEL": ("critical", ".env line 5"),
        "JOB_TIMEOUT": ("4", "named.toml"),
        "MAX_CONCURRENT_JOBS": ("3", "enrichd.toml"),
        "ENRICHD_CONFIG": ("named.toml", "environment"),
    }
    assert (settings.worker_count, settings.poll_interval_s, settings.job_timeout_s) == (
        7,
        0.006,
        0.004,
    )


def test_without_arguments_the_process_s_own_environment_and_directory_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("WORKER_COUNT=5\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLL_INTERVAL", "250")

    settings = Settings.load()

    assert (settings.worker_count, settings.poll_interval_s) == (5, 0.25)


def test_a_given_environment_is_the_only_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_COUNT", "9")
    (tmp_path / ".env").write_text("HUNTER_API_KEY=${WORKER_COUNT}$x\n")

    settings = load(tmp_path)

    assert settings.worker_count == 2
    key = settings.provider("hunter").api_key
    assert key is not None
    assert key.get_secret_value() == "${WORKER_COUNT}$x"


def test_an_empty_value_counts_as_not_set(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WORKER_COUNT=4\nDATABASE_URL=\n")

    settings = load(tmp_path, WORKER_COUNT=" ", DATABASE_URL="", CRON_SECRET="")

    assert (settings.worker_count, settings.database_url, settings.cron_secret) == (4, None, None)


def test_toml_takes_tables_capitals_numbers_switches_and_lists(tmp_path: Path) -> None:
    (tmp_path / "enrichd.toml").write_text(
        "WORKER_COUNT = 4\n"
        "smtp_probe = true\n"
        'dns_servers = ["10.0.0.2", "[fd00::3]:5353"]\n'
        "[retry]\nbackoff_multiplier = 1.5\n"
        '[data-axle]\nbase_url = "https://axle.test/v1/"\nrate_limit_per_hour = 7\n'
    )

    settings = load(tmp_path)

    assert (settings.worker_count, settings.smtp_probe) == (4, True)
    assert settings.dns_servers == (("10.0.0.2", 53), ("fd00::3", 5353))
    assert settings.retry_backoff_multiplier == 1.5
    axle = settings.provider("data-axle")
    assert (axle.id, axle.base_url) == ("data-axle", "https://axle.test/v1")
    assert (axle.rate_limit_per_minute, axle.rate_limit_per_hour) == (100, 7)


def test_structured_values_are_read(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        WEBHOOK_ALLOWED_NETWORKS="10.20.0.0/16, fd00:1::/32,192.0.2.7",
        WORKER_MAX_MEMORY="2G",
        ENRICHD_PLUGINS="jobs.nap, other",
        HEALTH_CHECK_HOST="[::1]",
        LOG_LEVEL="WARNING",
    )

    assert settings.webhook_allowed_networks == (
        ip_network("10.20.0.0/16"),
        ip_network("fd00:1::/32"),
        ip_network("192.0.2.7/32"),
    )
    assert settings.worker_max_memory_bytes == 2 * 1024**3
    assert settings.plugins == ("jobs.nap", "other")
    assert (settings.health_check_host, settings.log_level) == ("::1", "warning")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("WORKER_COUNT", "0", "a whole number from 1 to"),
        ("WORKER_COUNT", "1_0", "a whole number from 1 to"),
        ("WORKER_COUNT", "٣", "a whole number from 1 to"),
        ("POLL_INTERVAL", "1s", "a whole number of milliseconds from 1 to"),
        ("JOB_TIMEOUT", "1.5", "a whole number of milliseconds"),
        ("RETRY_BACKOFF_MULTIPLIER", "nan", "a number from 1 to 100"),
        ("RATE_LIMIT_PER_HOUR", "-1", "a whole number from 1 to"),
        ("HUNTER_RATE_LIMIT_PER_HOUR", "many", "a whole number from 1 to"),
        ("HEALTH_CHECK_PORT", "65536", "a whole number from 0 to 65535"),
        ("HEALTH_CHECK_HOST", "not a host", "an IP address or a host name"),
        ("WORKER_MAX_MEMORY", "512", "0 for no limit, or at least 1M"),
        ("WORKER_MAX_MEMORY", "lots", "K, M or G"),
        ("WEBHOOK_ALLOWED_NETWORKS", "10.0.0.1/8", "networks such as"),
        ("DNS_SERVERS", "dns.example", "IP addresses"),
        ("DNS_SERVERS", "10.0.0.2:0", "IP addresses"),
        ("DNS_SERVERS", "[10.0.0.2", "IP addresses"),
        ("SMTP_PROBE", "maybe", "on or off"),
        ("SMTP_PROBE_FROM", "nobody", "an email address"),
        ("CREDITS_PER_DAY_MAX", "-1", "a number of credits from 0"),
        ("LOG_LEVEL", "loud", "one of debug, info"),
        ("LOG_FORMAT", "xml", "one of auto, json, console"),
        ("ENRICHD_PLUGINS", "a-b", "names of Python modules"),
        ("SUPABASE_URL", "db.example", "starts with https://"),
        ("HUNTER_BASE_URL", "https://api.test/v2?x=1", "no user, password, ? or #"),
        ("HUNTER_BASE_URL", "http://[::1", "starts with https://"),
    ],
)
def test_a_wrong_value_is_named_with_its_text_its_place_and_what_is_allowed(
    tmp_path: Path, name: str, value: str, allowed: str
) -> None:
    error = refusal(tmp_path, **{name: value})

    assert [problem.path for problem in error.fields] == [name]
    assert error.message.startswith(f'{name}: "{value}" (from environment) is not allowed')
    assert allowed in error.message


def test_all_that_is_wrong_is_told_at_once_with_the_place_of_each(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("\nLOG_LEVEL=loud\n")
    (tmp_path / "enrichd.toml").write_text("[retry]\nbase_delay = 'soon'\nbase_delai = 1\n")

    error = refusal(tmp_path, WORKER_COUNT="many", HEARTBEAT_INTERVAL="10000")

    assert {
        problem.path: re.findall(r"\((.*?)\)", problem.problem) for problem in error.fields
    } == {
        "WORKER_COUNT": ["from environment"],
        "LOG_LEVEL": ["from .env line 2"],
        "retry.base_delay": ["from enrichd.toml"],
        "retry.base_delai": ["from enrichd.toml"],
        "WORKER_TIMEOUT": ["default"],
    }
    assert all(str(problem) in error.message for problem in error.fields)
    assert "did you mean RETRY_BASE_DELAY?" in error.message


def test_a_hostile_value_is_escaped_and_cut(tmp_path: Path) -> None:
    error = refusal(tmp_path, LOG_LEVEL="\x1b[31m\nfake: line\u202e" + "x" * 5000)

    assert r"\x1b[31m\nfake: line\u202e" in error.message
    assert error.message.isprintable()
    assert len(error.message) < 250


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (
            {"WORKER_TIMEOUT": "10000"},
            "more than twice HEARTBEAT_INTERVAL, which is 5000",
        ),
        ({"WORKER_COUNT": "4", "WORKER_MAX_COUNT": "3"}, "at least WORKER_COUNT, which is 4"),
        ({"RETRY_MAX_DELAY": "999"}, "at least RETRY_BASE_DELAY, which is 1000"),
        ({"CRON_SECRET": "short"}, "at least 16 visible ASCII characters"),
        ({"CRON_SECRET": "long enough, but spaces"}, "visible ASCII"),
    ],
)
def test_values_must_fit_each_other(tmp_path: Path, env: dict[str, str], words: str) -> None:
    assert words in refusal(tmp_path, **env).message


@pytest.mark.parametrize(
    ("url", "is_pooler"),
    [
        ("postgres://app@db/leads", False),
        ("postgresql://app:x@a:5432,b:5433/leads?target_session_attrs=read-write", False),
        ("host=db dbname=leads user=app password='a b'", False),
        ("postgresql://postgres.ref:x@aws-0-eu.pooler.supabase.com:5432/postgres", False),
        ("postgresql://postgres.ref:x@aws-0-eu.pooler.supabase.com:6543/postgres", True),
        ("postgresql://app@a,b:6432/leads", True),
        ("host=db port=6543", True),
    ],
)
def test_a_database_address_is_accepted_and_a_pooler_seen(
    tmp_path: Path, url: str, is_pooler: bool
) -> None:
    assert load(tmp_path, DATABASE_URL=url).is_pooler is is_pooler


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://app:{CANARY}@db/leads",
        f"postgresql+psycopg://app:{CANARY}@db/leads",
        f"postgresql://app:x@{CANARY}@db/leads",
        f"postgresql://app:{CANARY}@db:0/leads",
        f"postgresql://app:{CANARY}@db/leads?pgbouncer=true",
        CANARY,
    ],
)
def test_another_database_address_is_refused_without_being_shown(tmp_path: Path, url: str) -> None:
    error = refusal(tmp_path, DATABASE_URL=url)

    assert error.message.startswith("DATABASE_URL: ******** (from environment) is not allowed")
    assert ("leave it out" in error.message) == ("pgbouncer" in url)
    assert CANARY not in "".join(traceback.format_exception(error))


def test_a_secret_can_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"postgresql://app:{CANARY}@db/leads\n")
    (tmp_path / "key").write_text(f"{CANARY}\r\n")

    settings = load(tmp_path, DATABASE_URL_FILE=str(tmp_path / "url"), HUNTER_API_KEY_FILE="key")

    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == f"postgresql://app:{CANARY}@db/leads"
    key = settings.provider("hunter").api_key
    assert key is not None
    assert key.get_secret_value() == CANARY
    rows = {row.name: row for row in settings.in_force()}
    assert rows["DATABASE_URL"].source == "environment, file"


def test_a_secret_s_file_must_be_there_and_stand_alone(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "secret").write_text("x" * 16)

    error = refusal(
        tmp_path,
        DATABASE_URL_FILE="absent",
        HUNTER_API_KEY_FILE="empty",
        CRON_SECRET_FILE="secret",
        CRON_SECRET="y" * 16,
    )

    assert {problem.path: problem.problem for problem in error.fields} == {
        "DATABASE_URL_FILE": "names no file (from environment)",
        "HUNTER_API_KEY_FILE": "names an empty file (from environment)",
        "CRON_SECRET_FILE": "is set beside CRON_SECRET (both from environment); leave one out",
    }


@pytest.mark.parametrize("path", ["~no-such-user/key", CANARY * 500, "a\0b", "."])
def test_what_is_no_path_to_a_file_is_refused_without_being_shown(
    tmp_path: Path, path: str
) -> None:
    for name in ("HUNTER_API_KEY_FILE", "ENRICHD_CONFIG"):
        message = refusal(tmp_path, **{name: path}).message
        assert f"{name}: names no file (from environment)" in message
        assert CANARY not in message


def test_a_file_that_a_stronger_layer_makes_needless_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CRON_SECRET_FILE=absent\n")

    settings = load(tmp_path, CRON_SECRET="from-the-environment")

    assert settings.cron_secret is not None
    assert settings.cron_secret.get_secret_value() == "from-the-environment"


def test_any_provider_can_be_set_and_strangers_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ACME_API_KEY=weaker\nACME_BASE_URL=http://acme.test\n")

    settings = load(
        tmp_path,
        ACME_API_KEY="stronger",
        ACME_RATE_LIMIT_PER_SECOND="3",
        RATE_LIMIT_PER_MINUTE="50",
        VITE_BASE_URL="/static",
        SOME_APP_API_KEY="two words",
        OTHER_RATE_LIMIT_PER_SECOND="12/s",
        SUPABASE_API_KEY="x",
        GONE_API_KEY_FILE="absent",
    )

    assert set(settings.providers) == {*providers.KNOWN, "acme"}
    acme = settings.provider("acme")
    assert acme.api_key is not None
    assert acme.api_key.get_secret_value() == "stronger"
    assert acme.base_url == "http://acme.test"
    assert (acme.rate_limit_per_second, acme.rate_limit_per_minute) == (3, 50)
    assert settings.provider("unheard-of").rate_limit_per_minute == 50
    assert settings.warnings == ("GONE_API_KEY_FILE names no file; it is ignored",)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"CALLBACK_BASE_URL": "https://hooks.example.com"}, None),
        (
            {"CALLBACK_BASE_URL": "http://hooks.example.com"},
            "CALLBACK_BASE_URL begins with http://",
        ),
        ({"SUPABASE_URL": "https://x.supabase.co"}, "nothing is broadcast"),
        ({"SUPABASE_URL": "https://x.supabase.co", "SUPABASE_REALTIME": "off"}, None),
        ({"SUPABASE_ANON_KEY": "k"}, "without SUPABASE_URL"),
        ({"SUPABASE_REALTIME": "private"}, "SUPABASE_REALTIME is set without SUPABASE_URL"),
        (
            {"SUPABASE_URL": "https://x.supabase.co", "SUPABASE_ANON_KEY": "k"},
            "set SUPABASE_SERVICE_ROLE_KEY",
        ),
        ({"SUPABASE_URL": "https://x.supabase.co", "SUPABASE_SERVICE_ROLE_KEY": "k"}, None),
    ],
)
def test_settings_that_do_not_do_what_they_seem_to_are_warned_of(
    tmp_path: Path, variables: dict[str, str], words: str | None
) -> None:
    warnings = load(tmp_path, **variables).warnings

    assert [words in text for text in warnings if words] == ([] if words is None else [True])
    assert words is not None or warnings == ()


def test_a_near_miss_in_the_environment_is_a_warning_and_a_far_name_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HUNTER_API_KYE=x\nnonsense line\nDATABASE_POOL=4\n")

    settings = load(tmp_path, WORKER_COUTN="3", PATH="/bin", DEBUGS="1", LOGNAME="ada")

    assert settings.warnings == (
        ".env line 2 is not NAME=value; it is ignored",
        "WORKER_COUTN (from environment) is not a setting; did you mean WORKER_COUNT?",
        "HUNTER_API_KYE (from .env line 1) is not a setting; did you mean HUNTER_API_KEY?",
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"worker_count = ", "enrichd.toml: is not TOML"),
        (b"\xff", "enrichd.toml: is not UTF-8 text"),
        (b"worker_cuont = 2", "did you mean WORKER_COUNT?"),
        (b"[a.b.c.d]\ne = 1", "a.b.c.d: is a dict"),
        (b"log_level = 1979-05-27", "log_level: is a date"),
        (b"worker_count = 2\n[worker]\ncount = 3", "worker.count: is the same as worker_count"),
        (b"debug = '" + b"x" * (1 << 20) + b"'", "enrichd.toml: is larger than"),
    ],
)
def test_our_own_file_is_read_strictly(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "enrichd.toml").write_bytes(content)

    assert words in refusal(tmp_path).message


def test_the_named_file_must_be_there(tmp_path: Path) -> None:
    assert refusal(tmp_path, ENRICHD_CONFIG="absent.toml").message == (
        "ENRICHD_CONFIG: names no file (from environment)"
    )


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    settings = load(tmp_path)

    with pytest.raises(ValidationError):
        settings.worker_count = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.providers["hunter"] = settings.provider("pdl")  # type: ignore[index]


def test_no_secret_shows_in_what_is_printed(tmp_path: Path) -> None:
    settings = load(tmp_path, **{name: with_canary(name) for name in SECRET_NAMES})

    shown = [repr(settings), str(settings), repr(settings.providers), repr(settings.in_force())]
    assert CANARY not in " ".join([*shown, *settings.warnings, str(settings.model_dump())])
    rows = {row.name: row.value for row in settings.in_force()}
    assert rows["HUNTER_API_KEY"] == "********"
    assert rows["DATABASE_URL"] == "postgresql://app@db/leads"
    assert CANARY in set(settings.secrets())
    keys = with_canary("ENRICHD_SECRET_KEYS")
    assert {CANARY, with_canary("DATABASE_URL"), keys, SEALING_KEY} == set(settings.secrets())


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_no_secret_shows_in_an_error(tmp_path: Path, name: str) -> None:
    wrong = f"{CANARY} with spaces and \x07"

    error = (
        refusal(tmp_path, **{name: wrong, "HUNTER_BASE_URL": f"https://u:{CANARY}@api.test"})
        if (name != "ACME_API_KEY")
        else refusal(tmp_path, ACME_BASE_URL="http://acme.test", ACME_API_KEY=wrong)
    )

    assert name in {problem.path for problem in error.fields}
    told = [error.message, repr(error), *map(str, error.fields), *traceback.format_exception(error)]
    assert CANARY not in " ".join(told)
    assert error.__context__ is None


def test_a_percent_encoded_password_is_known_in_both_forms(tmp_path: Path) -> None:
    settings = load(tmp_path, DATABASE_URL="postgresql://app:p%40ssword@db/leads")

    assert {"p@ssword", "p%40ssword"} < set(settings.secrets())


def test_the_documentation_lists_every_variable_with_its_default_and_no_other(
    tmp_path: Path,
) -> None:
    settings = load(
        tmp_path,
        **{
            providers.variable("hunter", suffix): "https://api.test" if "URL" in suffix else "7"
            for suffix in providers.SUFFIXES
        },
    )
    in_force = {
        row.name.replace("HUNTER_", "<PROVIDER>_"): row.value if row.is_default else ""
        for row in settings.in_force()
        if not row.name.startswith(("APOLLO_", "CLEARBIT_", "PDL_"))
    }

    documented = dict(re.findall(r"^\| `([A-Z_<>]+)` \| (.*?) \|", DOCS.read_text(), re.MULTILINE))

    assert set(documented) == set(in_force)
    derived = {"WORKER_MAX_COUNT", "ENRICHD_DATA_DIR"}
    told = {name: default.strip("`") for name, default in documented.items()}
    for name in sorted(set(in_force) - derived):
        if not name.startswith("<PROVIDER>_RATE"):
            assert told[name] == (in_force[name] or "–"), name


def test_settings_can_be_copied(tmp_path: Path) -> None:
    settings = load(tmp_path, WORKER_COUNT="3")

    assert copy.copy(settings).in_force() == settings.in_force()


def test_a_limit_that_was_set_for_a_provider_by_name_is_known_from_a_common_one(
    tmp_path: Path,
) -> None:
    settings = load(
        tmp_path,
        RATE_LIMIT_PER_HOUR="70",
        HUNTER_RATE_LIMIT_PER_MINUTE="100",
        HUNTER_RATE_LIMIT_PER_DAY="5000",
    )

    hunter, pdl = settings.provider("hunter"), settings.provider("pdl")
    assert hunter.limits_by_name == {"rate_limit_per_minute", "rate_limit_per_day"}
    assert (hunter.rate_limit_per_hour, hunter.rate_limit_per_day) == (70, 5000)
    assert (pdl.limits_by_name, pdl.rate_limit_per_day) == (frozenset(), None)


def test_where_callbacks_go_is_no_provider(tmp_path: Path) -> None:
    settings = load(tmp_path, CALLBACK_BASE_URL="https://enrichd.test/")

    assert settings.callback_base_url == "https://enrichd.test"
    assert "callback" not in settings.providers


def test_secret_keys_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"k2:{SEALING_KEY},\nk1:{SEALING_KEY}\n")

    settings = load(tmp_path, ENRICHD_SECRET_KEYS_FILE="keys")

    assert settings.secret_keys is not None
    assert list(values.parsed_secret_keys(settings.secret_keys.get_secret_value())) == ["k2", "k1"]
