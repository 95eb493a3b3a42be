"""Every variable with its default and its rule, and how one start turns them into values."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from platformdirs import user_data_dir
from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from enrichd.errors import FieldProblem
from enrichd.settings import providers, sources, values
from enrichd.settings.explain import SettingRow, invalid, shown_value, wrong_value
from enrichd.settings.providers import RATE_LIMIT, ProviderSettings

DAY_MS = 86_400_000


def _variable(name: str, default: str | None = None) -> Any:
    """Declare a variable; its default is written the way a person would write it."""
    return Field(default=default, validation_alias=name)


class Settings(BaseSettings):
    """Everything that was chosen for this process; built by `Settings.load`, never changed."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", validate_default=True, hide_input_in_errors=True
    )

    database_url: Annotated[SecretStr | None, values.database_url()] = _variable("DATABASE_URL")
    database_direct_url: Annotated[SecretStr | None, values.database_url()] = _variable(
        "DATABASE_DIRECT_URL"
    )
    data_dir: Annotated[Path, values.path()] = _variable(
        "ENRICHD_DATA_DIR", user_data_dir("enrichd", appauthor=False)
    )
    config_file: Annotated[Path | None, values.path()] = _variable("ENRICHD_CONFIG")
    runtime_directory: Annotated[str | None, values.words(4096)] = _variable("RUNTIME_DIRECTORY")
    workspace: Annotated[str, values.words(200)] = _variable("ENRICHD_WORKSPACE", "default")
    plugins: Annotated[tuple[str, ...], values.modules()] = _variable("ENRICHD_PLUGINS", "")

    worker_count: Annotated[int, values.whole(1, 1024)] = _variable("WORKER_COUNT", "2")
    worker_max_count: Annotated[int, values.whole(1, 1024)] = _variable("WORKER_MAX_COUNT")
    """Equal to `worker_count` unless set; above it the supervisor scales between the two."""
    max_concurrent_jobs: Annotated[int, values.whole(1, 10_000)] = _variable(
        "MAX_CONCURRENT_JOBS", "10"
    )
    worker_max_jobs: Annotated[int, values.whole(0, 10**12)] = _variable("WORKER_MAX_JOBS", "0")
    """Jobs after which a worker is replaced; 0 is never."""
    worker_max_memory_bytes: Annotated[int, values.size_bytes(1 << 20)] = _variable(
        "WORKER_MAX_MEMORY", "0"
    )
    """Resident memory above which a worker is replaced; 0 is never."""
    poll_interval_s: Annotated[float, values.milliseconds(1, DAY_MS)] = _variable(
        "POLL_INTERVAL", "1000"
    )
    job_timeout_s: Annotated[float, values.milliseconds(1, 7 * DAY_MS)] = _variable(
        "JOB_TIMEOUT", "300000"
    )
    heartbeat_interval_s: Annotated[float, values.milliseconds(10, DAY_MS)] = _variable(
        "HEARTBEAT_INTERVAL", "5000"
    )
    worker_timeout_s: Annotated[float, values.milliseconds(20, 7 * DAY_MS)] = _variable(
        "WORKER_TIMEOUT", "20000"
    )
    health_check_interval_s: Annotated[float, values.milliseconds(10, DAY_MS)] = _variable(
        "HEALTH_CHECK_INTERVAL", "30000"
    )
    graceful_shutdown_timeout_s: Annotated[float, values.milliseconds(0, DAY_MS)] = _variable(
        "GRACEFUL_SHUTDOWN_TIMEOUT", "30000"
    )

    retry_base_delay_s: Annotated[float, values.milliseconds(0, 7 * DAY_MS)] = _variable(
        "RETRY_BASE_DELAY", "1000"
    )
    retry_max_delay_s: Annotated[float, values.milliseconds(0, 7 * DAY_MS)] = _variable(
        "RETRY_MAX_DELAY", "300000"
    )
    retry_backoff_multiplier: Annotated[float, values.number(1, 100)] = _variable(
        "RETRY_BACKOFF_MULTIPLIER", "2"
    )

    prune_completed_after_s: Annotated[float, values.milliseconds(0, 3650 * DAY_MS)] = _variable(
        "PRUNE_COMPLETED_AFTER", "0"
    )
    """Age at which the daemon deletes completed jobs; 0 is never."""
    prune_failed_after_s: Annotated[float, values.milliseconds(0, 3650 * DAY_MS)] = _variable(
        "PRUNE_FAILED_AFTER", "0"
    )
    """The same for failed, dead and cancelled jobs."""

    rate_limit_per_second: Annotated[int, RATE_LIMIT] = _variable("RATE_LIMIT_PER_SECOND", "10")
    rate_limit_per_minute: Annotated[int, RATE_LIMIT] = _variable("RATE_LIMIT_PER_MINUTE", "100")
    rate_limit_per_hour: Annotated[int, RATE_LIMIT] = _variable("RATE_LIMIT_PER_HOUR", "1000")

    credits_per_day_max: Annotated[Decimal | None, values.credits()] = _variable(
        "CREDITS_PER_DAY_MAX"
    )
    """What all workspaces together may spend on providers in a day (UTC); None is any amount."""
    workspace_credits_per_day_max: Annotated[Decimal | None, values.credits()] = _variable(
        "WORKSPACE_CREDITS_PER_DAY_MAX"
    )
    workspace_credits_per_month_max: Annotated[Decimal | None, values.credits()] = _variable(
        "WORKSPACE_CREDITS_PER_MONTH_MAX"
    )
    provider_wait_max_s: Annotated[float, values.milliseconds(0, DAY_MS)] = _variable(
        "PROVIDER_WAIT_MAX", "5000"
    )
    """How long a run may wait for a provider's permit in its slot before it is put off."""
    callback_base_url: Annotated[str | None, values.http_url()] = _variable("CALLBACK_BASE_URL")
    """Where providers reach this gateway; None: nobody listens, answers are polled for."""
    secret_keys: Annotated[SecretStr | None, values.secret_keys()] = _variable(
        "ENRICHD_SECRET_KEYS"
    )

    health_check_host: Annotated[str, values.host()] = _variable("HEALTH_CHECK_HOST", "127.0.0.1")
    health_check_port: Annotated[int, values.whole(0, 65535)] = _variable(
        "HEALTH_CHECK_PORT", "3001"
    )
    """0 takes any free port."""
    cron_secret: Annotated[SecretStr | None, values.secret(16)] = _variable("CRON_SECRET")
    process_timeout_max_s: Annotated[float, values.milliseconds(1_000, 1_800_000)] = _variable(
        "PROCESS_TIMEOUT_MAX", "270000"
    )
    """How long a run begun by `/api/enrichment/process` may take."""
    api_rate_limit_per_second: Annotated[float, values.number(0, 100_000)] = _variable(
        "API_RATE_LIMIT_PER_SECOND", "50"
    )
    """Requests that one key may make; 0 is as many as it likes."""
    api_rate_limit_burst: Annotated[int, values.whole(1, 1_000_000)] = _variable(
        "API_RATE_LIMIT_BURST", "100"
    )
    api_cors_origins: Annotated[tuple[str, ...], values.origins()] = _variable(
        "API_CORS_ORIGINS", ""
    )
    """Web pages of other origins that browsers let use the API."""
    api_tls_cert_file: Annotated[Path | None, values.path()] = _variable("API_TLS_CERT_FILE")
    api_tls_key_file: Annotated[Path | None, values.path()] = _variable("API_TLS_KEY_FILE")
    api_access_log: Annotated[
        Literal["off", "route", "path"], values.one_of("off", "route", "path")
    ] = _variable("API_ACCESS_LOG", "route")
    webhook_allowed_networks: Annotated[tuple[values.Network, ...], values.networks()] = _variable(
        "WEBHOOK_ALLOWED_NETWORKS", ""
    )

    webhook_timeout_s: Annotated[float, values.milliseconds(100, 30_000)] = _variable(
        "WEBHOOK_TIMEOUT", "15000"
    )
    """For one attempt, from looking the name up to the answer's status."""
    webhook_concurrency: Annotated[int, values.whole(1, 100)] = _variable(
        "WEBHOOK_CONCURRENCY", "4"
    )
    """Requests to one receiver at the same time, from each host."""
    prune_webhooks_after_s: Annotated[float, values.milliseconds(0, 3650 * DAY_MS)] = _variable(
        "PRUNE_WEBHOOKS_AFTER", str(7 * DAY_MS)
    )
    """Age at which what a delivery said is forgotten; 0 is never."""

    supabase_url: Annotated[str | None, values.http_url()] = _variable("SUPABASE_URL")
    supabase_anon_key: Annotated[SecretStr | None, values.secret()] = _variable("SUPABASE_ANON_KEY")
    supabase_service_role_key: Annotated[SecretStr | None, values.secret()] = _variable(
        "SUPABASE_SERVICE_ROLE_KEY"
    )
    supabase_realtime: Annotated[
        Literal["auto", "private", "off"], values.one_of("auto", "private", "off")
    ] = _variable("SUPABASE_REALTIME", "auto")

    dns_servers: Annotated[tuple[tuple[str, int], ...], values.name_servers()] = _variable(
        "DNS_SERVERS", ""
    )
    """Address and port of each; none means the system's own."""
    smtp_probe: Annotated[bool, values.on_or_off()] = _variable("SMTP_PROBE", "off")
    smtp_probe_helo: Annotated[str | None, values.host()] = _variable("SMTP_PROBE_HELO")
    smtp_probe_from: Annotated[str | None, values.mailbox()] = _variable("SMTP_PROBE_FROM")

    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        values.one_of("debug", "info", "warning", "error", "critical"),
    ] = _variable("LOG_LEVEL", "info")
    log_format: Annotated[
        Literal["auto", "json", "console"], values.one_of("auto", "json", "console")
    ] = _variable("LOG_FORMAT", "auto")
    debug: Annotated[str | None, values.words(500)] = _variable("DEBUG")

    providers: Annotated[
        Mapping[str, ProviderSettings], AfterValidator(MappingProxyType), PlainSerializer(dict)
    ] = Field(default_factory=dict)
    """Every known provider and every other one that was set, by id."""

    _rows: Mapping[str, SettingRow] = PrivateAttr(default_factory=dict)
    _warnings: tuple[str, ...] = PrivateAttr(default=())

    @classmethod
    def load(
        cls,
        env: Mapping[str, str] | None = None,
        *,
        directory: Path | None = None,
        overrides: Mapping[str, str] = MappingProxyType({}),
    ) -> Self:
        """Read every layer and return what is in force.

        `overrides` are variables given on the command line and win; then come `env` (the process's
        own unless given), `.env` and `enrichd.toml` in `directory` (the current one unless given).
        Raises InvalidSetting that names every wrong variable at once.
        """
        findings = sources.Findings()
        directory = directory or Path.cwd()
        env = os.environ if env is None else env
        layers = sources.read_layers(env, directory, overrides, findings)
        sources.read_secret_files(layers, SECRETS, directory, findings)
        ids = sources.provider_ids(layers)
        sources.check_names(layers, VARIABLES, SECRETS, ids, findings)
        settings = cls._validated(layers, ids, findings.problems)
        if settings is None or findings.problems:
            raise invalid(findings.problems)
        names = [*VARIABLES, *(providers.variable(i, s) for i in ids for s in providers.SUFFIXES)]
        found = {name: sources.winner(layers, name) for name in names}
        settings._rows = {
            name: SettingRow(name, shown_value(name, raw.text, SECRETS), False, raw.source)
            for name, raw in found.items()
            if raw is not None
        }
        settings._warnings = (*findings.warnings, *settings._oddities())
        return settings

    @property
    def warnings(self) -> tuple[str, ...]:
        """What does not stop the start but was probably not meant, a sentence each."""
        return self._warnings

    @property
    def is_pooler(self) -> bool:
        """Whether a transaction pooler is in between: no LISTEN, no prepared statements."""
        url = self.database_url
        return url is not None and values.is_pooler(url.get_secret_value())

    @property
    def dsn(self) -> str:
        """DATABASE_URL as it is; only for a process that has one."""
        assert self.database_url is not None
        return self.database_url.get_secret_value()

    def provider(self, provider_id: str) -> ProviderSettings:
        """Return what was chosen for a provider, or the common limits alone if nothing was."""
        chosen = self.providers.get(providers.normal_id(provider_id))
        if chosen is not None:
            return chosen.model_copy(update={"id": provider_id})
        return ProviderSettings(id=provider_id, **self._rate_limits())

    def secrets(self) -> Iterator[str]:
        """Yield every secret in force, for the log to know what it must never write."""
        for holder in (self, *self.providers.values()):
            for _, value in holder:
                if isinstance(value, SecretStr):
                    yield value.get_secret_value()
        if self.secret_keys is not None:
            for part in self.secret_keys.get_secret_value().split(","):
                yield part.partition(":")[2].strip()
        for provider in self.providers.values():
            yield from provider.webhook_secrets
        for url in (self.database_url, self.database_direct_url):
            if url is not None:
                yield from values.database_passwords(url.get_secret_value())

    def in_force(self) -> list[SettingRow]:
        """List every variable as it is in force; of providers, those set and the keys they need."""
        rows = [self._row(name) for name in VARIABLES]
        for provider_id in self.providers:
            for suffix in providers.SUFFIXES:
                name = providers.variable(provider_id, suffix)
                wants_key = provider_id in providers.KEYED and suffix == "API_KEY"
                if name in self._rows or wants_key:
                    rows.append(self._row(name))
        return rows

    def _row(self, name: str) -> SettingRow:
        if name in self._rows:
            return self._rows[name]
        default = DEFAULTS.get(name)
        if name == "WORKER_MAX_COUNT":
            default = str(self.worker_max_count)
        return SettingRow(name, default or "", is_default=True, source="default")

    def _rate_limits(self) -> dict[str, int]:
        return {
            "rate_limit_per_second": self.rate_limit_per_second,
            "rate_limit_per_minute": self.rate_limit_per_minute,
            "rate_limit_per_hour": self.rate_limit_per_hour,
        }

    def _oddities(self) -> Iterator[str]:
        if self.smtp_probe and not (self.smtp_probe_helo and self.smtp_probe_from):
            yield (
                "SMTP_PROBE is on without SMTP_PROBE_HELO and SMTP_PROBE_FROM;"
                " mail servers may refuse it"
            )
        direct = self.database_direct_url
        if direct is not None and values.is_pooler(direct.get_secret_value()):
            yield "DATABASE_DIRECT_URL leads to a pooler itself; LISTEN does not work through it"
        if self.callback_base_url is not None and self.callback_base_url.startswith("http://"):
            yield (
                "CALLBACK_BASE_URL begins with http://; providers' answers about people and the"
                " tokens that let them in cross the network in the clear"
            )
        yield from self._realtime_oddities()

    def _realtime_oddities(self) -> Iterator[str]:
        if self.supabase_realtime == "off":
            return
        has_key = self.supabase_service_role_key is not None or self.supabase_anon_key is not None
        if self.supabase_url is not None and not has_key:
            yield (
                "SUPABASE_URL is set without SUPABASE_SERVICE_ROLE_KEY or SUPABASE_ANON_KEY;"
                " nothing is broadcast"
            )
        elif self.supabase_url is None and (has_key or self.supabase_realtime == "private"):
            wanted = "a key of Supabase" if has_key else "SUPABASE_REALTIME"
            yield f"{wanted} is set without SUPABASE_URL; nothing is broadcast"
        elif has_key and self.supabase_service_role_key is None:
            yield (
                "SUPABASE_ANON_KEY alone may not send to the workspaces' private topics, and"
                " Supabase drops that without a word; set SUPABASE_SERVICE_ROLE_KEY"
            )

    # The rules between two variables stand in validators of the later one, not in one validator of
    # the whole: those still run when some third variable is wrong, so one start shows everything.

    @field_validator("worker_max_count", mode="before")
    @classmethod
    def _default_max_count(cls, given: object, info: ValidationInfo) -> object:
        # Before the reader of the field: the default is another variable's value.
        return info.data.get("worker_count", 1) if given is None else given

    @field_validator("worker_max_count")
    @classmethod
    def _check_max_count(cls, count: int, info: ValidationInfo) -> int:
        if count < info.data.get("worker_count", count):
            raise values.wrong(f"at least WORKER_COUNT, which is {info.data['worker_count']}")
        return count

    @field_validator("worker_timeout_s")
    @classmethod
    def _check_worker_timeout(cls, timeout_s: float, info: ValidationInfo) -> float:
        interval_s = info.data.get("heartbeat_interval_s", 0.0)
        if timeout_s <= 2 * interval_s:
            # Below that, one late heartbeat gives away the jobs of a worker that is alive.
            raise values.wrong(
                f"more than twice HEARTBEAT_INTERVAL, which is {interval_s * 1000:.0f}"
            )
        return timeout_s

    @field_validator("api_tls_key_file")
    @classmethod
    def _check_tls_pair(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        if (key is None) != (info.data.get("api_tls_cert_file") is None):
            raise values.wrong("set together with API_TLS_CERT_FILE, or neither of them")
        return key

    @field_validator("retry_max_delay_s")
    @classmethod
    def _check_retry_delays(cls, delay_s: float, info: ValidationInfo) -> float:
        base_s = info.data.get("retry_base_delay_s", 0.0)
        if delay_s < base_s:
            raise values.wrong(f"at least RETRY_BASE_DELAY, which is {base_s * 1000:.0f}")
        return delay_s

    @field_validator("providers", mode="before")
    @classmethod
    def _complete_providers(
        cls, given: Mapping[str, Mapping[str, str]], info: ValidationInfo
    ) -> dict[str, Any]:
        limits = {
            name: info.data.get(name, 1)
            for name in ("rate_limit_per_second", "rate_limit_per_minute", "rate_limit_per_hour")
        }
        ids = dict.fromkeys((*providers.KNOWN, *sorted(given)))
        return {
            i: {
                "id": i,
                **limits,
                **given.get(i, {}),
                "limits_by_name": providers.limits_named(given.get(i, {})),
            }
            for i in ids
        }

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_others: PydanticBaseSettingsSource,
        **_named: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the layers that `load` has read in place of the library's own readers.

        Those do not say on which line a value stood, and expand `.env` by the environment.
        """
        assert isinstance(init_settings, InitSettingsSource)
        layers: Sequence[sources.Layer] = init_settings.init_kwargs.pop("layers", ())
        ids: frozenset[str] = init_settings.init_kwargs.pop("ids", frozenset())
        return tuple(sources.LayerSource(settings_cls, layer, ids) for layer in layers)

    @classmethod
    def _validated(
        cls, layers: Sequence[sources.Layer], ids: frozenset[str], problems: list[FieldProblem]
    ) -> Self | None:
        try:
            return cls(layers=layers, ids=ids)
        except ValidationError as error:
            # Not chained: pydantic's error holds every value it was given, secrets too.
            details = error.errors(include_url=False, include_input=False)
        for detail in details:
            name = _variable_at(detail["loc"])
            raw = sources.winner(layers, name)
            problems.append(wrong_value(name, raw, DEFAULTS.get(name), detail["msg"], SECRETS))
        return None


def _variable_at(location: tuple[int | str, ...]) -> str:
    """Name the variable at a place in the model: (WORKER_COUNT,), (providers, pdl, api_key)."""
    match location:
        case ("providers", str() as provider_id, str() as field_name, *_):
            return providers.variable(provider_id, field_name.upper())
        case (first, *_):
            # pydantic names a wrong default by its field, everything else by its variable.
            return next((name for name, field in FIELDS.items() if field == first), str(first))
        case _:
            return "settings"


FIELDS = {
    str(field.validation_alias): name
    for name, field in Settings.model_fields.items()
    if field.validation_alias
}
"""The field of each variable."""

VARIABLES = tuple(FIELDS)
"""The names of all variables but the providers', in the order in which they are shown."""

DEFAULTS: Mapping[str, str | None] = {
    variable: Settings.model_fields[name].default for variable, name in FIELDS.items()
}

SECRETS = frozenset(
    variable
    for variable, name in FIELDS.items()
    if Settings.model_fields[name].annotation == SecretStr | None
)
