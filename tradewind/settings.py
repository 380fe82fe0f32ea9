"""One typed tree of settings: defaults, then `tradewind.toml`, then the environment.

Every number of the specification is a default here, never a literal in code. An
environment variable is ``TRADEWIND_`` plus the path, parts joined by two underscores:
``TRADEWIND_MARKET__SYMBOLS='["BTCUSDT"]'``. Profiles change sizes only, never a gate.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from tradewind._ensemble_settings import VoteSettings as VoteSettings
from tradewind._evaluation_settings import EvaluationSettings as EvaluationSettings
from tradewind._model_settings import BoostedSettings as BoostedSettings
from tradewind._model_settings import DeepSettings as DeepSettings
from tradewind._model_settings import GRUSettings as GRUSettings
from tradewind._model_settings import NHitsSettings as NHitsSettings
from tradewind._model_settings import PatchTSTSettings as PatchTSTSettings
from tradewind._model_settings import RangeSettings as RangeSettings
from tradewind._regime_settings import RegimeSettings as RegimeSettings
from tradewind._regime_settings import RegimeThresholds as RegimeThresholds
from tradewind._risk_settings import RiskSettings as RiskSettings
from tradewind._risk_settings import SizingSettings as SizingSettings
from tradewind._search_settings import SearchSettings as SearchSettings
from tradewind._settings_base import MS_PER_DAY as MS_PER_DAY
from tradewind._settings_base import TIMEFRAME_MS as TIMEFRAME_MS
from tradewind._settings_base import Fraction as Fraction
from tradewind._settings_base import Section as Section
from tradewind._settings_base import Timeframe as Timeframe
from tradewind._supervisor_settings import Limit as Limit
from tradewind._supervisor_settings import SupervisorSettings as SupervisorSettings
from tradewind._training_settings import CalibrationSettings as CalibrationSettings
from tradewind._training_settings import DriftSettings as DriftSettings
from tradewind._training_settings import GateSettings as GateSettings
from tradewind._training_settings import LiveMetricSettings as LiveMetricSettings
from tradewind._training_settings import RetrainTriggerSettings as RetrainTriggerSettings
from tradewind._training_settings import TrainingSettings as TrainingSettings
from tradewind.errors import ErrorCode, TradewindError
from tradewind.masking import mask_passwords


class Profile(StrEnum):
    """How much work a run does; gates and thresholds are the same in both."""

    QUICK = "quick"
    FULL = "full"


def _upper_ids(symbols: tuple[str, ...]) -> tuple[str, ...]:
    for symbol in symbols:
        if not symbol.isalnum() or not symbol.isupper():
            raise ValueError(f"{symbol!r} is not an exchange id like BTCUSDT")
    if len(set(symbols)) != len(symbols):
        raise ValueError(f"{symbols} names a symbol twice")
    return symbols


def _with_dagsters_driver(url: str) -> str:
    scheme, _, place = url.partition("://")
    if scheme.split("+")[0] not in ("postgresql", "postgres") or not place:
        raise ValueError("must be postgresql://user@host/name (password: PGPASSWORD), or unset")
    # Dagster relies on psycopg2's ways, and SQLAlchemy's default driver is psycopg 3.
    return f"postgresql+psycopg2://{place}"


DagsterDatabaseUrl = Annotated[str, AfterValidator(_with_dagsters_driver)]
Symbols = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_upper_ids)]


class MarketSettings(Section):
    """Which bars, from where."""

    set_id: str = Field("binance_usdm_perp", description="{exchange}_{market}, the store's key")
    exchanges: tuple[str, ...] = Field(
        ("binanceusdm", "bybit", "okx"),
        description="ccxt exchanges tried in this order when there is no folder of bars",
    )
    symbols: Symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    reference_symbols: Symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    timeframe: Timeframe = "15m"
    overlap_bars: int = Field(10, ge=0, description="bars re-read at each incremental ingest")
    history_days: int = Field(800, ge=1, description="days asked for on the first ingest")
    source: Literal["auto", "folder", "ccxt", "simulated"] = Field(
        "auto", description="auto: folder if `data` is set, else ccxt, else simulated (labelled)"
    )
    proxy: str | None = Field(None, description="https proxy for the exchange's API")
    ca_file: Path | None = Field(None, description="CA bundle of the exchange's certificate")
    connect_timeout_s: float = Field(10, gt=0, description="to find an exchange that answers")
    request_timeout_s: float = Field(20, gt=0, description="one request to an exchange")
    network_attempts: int = Field(5, ge=1, description="tries of a request, on network errors only")
    backoff_s: float = Field(0.5, gt=0, description="first pause between tries; it doubles")
    backoff_max_s: float = Field(8, gt=0)
    run_retries: int = Field(3, ge=0, description="later tries of a Dagster step, network errors")
    run_retry_wait_s: float = Field(
        10, ge=0, description="pause before the first of them; it doubles"
    )
    close_delay_s: float = Field(
        2, ge=0, description="scheduled runs wait so long after a close for the bar to settle"
    )
    chunk_bars: int = Field(
        20_000, ge=100, description="bars fetched before they are stored: what a crash may cost"
    )
    repair_bars: int = Field(500, ge=1, description="newest bars that a repair asks for again")
    retry_after_max_s: float = Field(
        120, ge=0, description="longest pause that an exchange may ask for with Retry-After"
    )
    rate_limit_ms: float | None = Field(
        None, gt=0, description="pause per unit of a request's weight; unset: ccxt's own"
    )
    gap_requests: int = Field(50, ge=0, description="gaps asked for again per symbol and run")
    confirmed_gap_requests: int = Field(
        1, ge=0, description="of them such as an exchange has confirmed, in turn from run to run"
    )
    lock_timeout_s: float = Field(30, gt=0, description="wait for another writer of a series")
    simulated_seed: int = Field(7, ge=0, description="seed of the simulated market")

    @property
    def timeframe_ms(self) -> int:
        """Return the bar length in milliseconds."""
        return TIMEFRAME_MS[self.timeframe]

    @property
    def all_symbols(self) -> tuple[str, ...]:
        """Return traded and reference symbols, without repeats, in order."""
        return tuple(dict.fromkeys((*self.symbols, *self.reference_symbols)))


class RetentionSettings(Section):
    """Days that the store keeps, by kind; None: for ever. What models need is never dropped."""

    bars_days: int | None = Field(None, ge=1)
    funding_days: int | None = Field(None, ge=1)
    open_interest_days: int | None = Field(None, ge=1)
    long_short_ratio_days: int | None = Field(None, ge=1)


class QualitySettings(Section):
    """What the soft checks on stored bars accept."""

    max_gap_share: Fraction = Field(0.0, description="missing share of the span's bars")
    max_zero_volume_share: Fraction = 0.01
    max_outlier_share: Fraction = Field(0.001, description="returns with a robust z over 20")


class FeatureSettings(Section):
    """Feature engineering; part of the feature version."""

    window: int = Field(128, ge=2, description="bars in a deep window")
    warmup_bars: int = Field(3000, ge=300, description="trailing bars a recursive indicator needs")
    ratio_window: int = Field(200, ge=20)
    max_gap_bars: int = Field(
        96, ge=0, description="longest hole indicators ride over; a longer one restarts warm-up"
    )
    risk_atr_bars: int = Field(
        100, ge=15, description="trailing bars of the risk timeframe that its ATR runs over"
    )


class RegistrySettings(Section):
    """MLflow."""

    tracking_uri: str | None = Field(None, description="None: SQLite under `home`")
    experiment: str = "tradewind"
    max_model_age_days: float = Field(
        8, gt=0, description="days after which a champion is too old, and a retraining is asked for"
    )
    model_expiry_days: float = Field(
        21, ge=0, description="days after which a version stops answering; 0: it never does"
    )
    handover_days: float = Field(
        7,
        ge=0,
        description="days before its expiry from which a champion makes way for a version that "
        "passed its gates, without having been beaten by it; 0: only once it has expired",
    )
    request_timeout_s: int = Field(10, ge=1, description="per request to a tracking server")
    request_retries: int = Field(2, ge=0, description="repeats of a failed tracking request")
    lock_timeout_s: float = Field(30, gt=0, description="wait for another alias change")
    history_limit: int = Field(50, ge=1, description="alias changes kept per registered model")

    @model_validator(mode="after")
    def _alarm_before_expiry(self) -> Self:
        if 0 < self.model_expiry_days <= self.max_model_age_days:
            raise ValueError(
                f"model_expiry_days = {self.model_expiry_days:g} must be above "
                f"max_model_age_days = {self.max_model_age_days:g}, or 0 for never"
            )
        if 0 < self.model_expiry_days <= self.handover_days:
            raise ValueError(
                f"handover_days = {self.handover_days:g} must be below model_expiry_days = "
                f"{self.model_expiry_days:g}: every new version would be champion at once"
            )
        return self


class LinkSettings(Section):
    """Where people open the web pages; links to them stand in runs, checks and model cards."""

    dagster_url: str | None = Field(None, description="e.g. http://127.0.0.1:3000; None: no links")
    mlflow_url: str | None = Field(
        None, description="e.g. http://127.0.0.1:5000; None: the tracking URI, if it is a server"
    )


class ServingSettings(Section):
    """BentoML."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    n_samples: int = Field(20, ge=1, le=1000)
    max_samples: int = Field(1000, ge=1)
    staleness_limit_s: float = Field(300, ge=0)
    poll_s: float = Field(2.0, gt=0, description="how often an alias change is looked for")
    max_concurrency: int = Field(96, ge=1, description="requests answered at once; beyond: 429")
    heavy_share: float = Field(0.75, gt=0, le=1, description="of them, for deep and large ones")
    max_wait_s: float = Field(10, gt=0, description="wait for a model's turn; beyond: 503")
    timeout_s: float = Field(30, gt=0)
    members_poll_s: float = Field(2.0, gt=0, description="how often member states are read")
    flush_s: float = Field(1.0, gt=0, description="prediction-log flush interval")
    log_queue: int = Field(10_000, ge=1)
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="of serving's lines on stderr; auto: JSON unless it is a terminal"
    )
    threads: int = Field(8, ge=1, description="threads of BentoML's own API")
    workers: int = Field(
        1, ge=1, description="processes behind the port, each with all models; about one a core"
    )
    shadow: bool = Field(True, description="challengers answer too, off the reply path")
    canary_share: Fraction = Field(
        0.10, description="share of decisions that the canary answers, where there is one"
    )
    shadow_queue: int = Field(
        1000, ge=1, description="challengers' answers that may wait, decisions remembered"
    )
    pinned_versions: int = Field(
        2, ge=1, description="versions kept that callers asked for by number"
    )
    shadow_wait_s: float = Field(
        600, gt=0, description="a challenger's answer that waited longer is dropped"
    )
    max_batch_passes: int = Field(
        4000, ge=1, description="rows × passes of one forward; what is beyond waits its turn"
    )
    max_body_bytes: int = Field(
        1_048_576, ge=1024, description="of a request's body; more is refused with 413"
    )
    max_symbols: int = Field(500, ge=1, description="symbols in one request")
    retry_after_s: int = Field(1, ge=1, description="Retry-After of an overloaded server")
    refusal_pause_s: float = Field(0.1, ge=0, le=1, description="before a 429 is sent")
    warm_s: float = Field(
        0.5, gt=0, description="how often features of new bars are computed ahead of requests"
    )
    gauges_s: float = Field(5.0, gt=0, description="how often idle gauges are brought up to date")
    reload_retry_s: float = Field(
        30, gt=0, description="pause before a failed version is tried again"
    )
    base_threshold: float = Field(0.55, gt=0.5, lt=1)
    vote: VoteSettings = VoteSettings()
    epistemic_p_limit: float = Field(0.05, gt=0)
    ranges: RangeSettings = RangeSettings()
    metrics_namespace: str = "tradewind"
    client_timeout_s: float = Field(10, gt=0, description="how long a caller waits for an answer")
    client_attempts: int = Field(3, ge=1, description="tries of a read when the connection fails")
    client_backoff_s: float = Field(0.1, ge=0, description="pause before the first repeat")
    client_longest_wait_s: float = Field(
        2.0, ge=0, description="longest Retry-After that a read waits for; 0: never waits"
    )


class ThresholdSettings(Section):
    """Entry threshold on p_up (short: on 1 − p_up)."""

    base: float = Field(0.55, ge=0.5, lt=1)
    trend: float = -0.02
    meanrev: float = 0.02
    neutral: float = 0.0
    volatility_target: float = Field(0.02, gt=0, description="daily volatility of a normal day")
    volatility_slope: float = Field(
        1.0, ge=0, description="rise per unit of volatility above target"
    )
    low: float = Field(0.50, ge=0.5)
    high: float = Field(0.70, le=1)


class CostSettings(Section):
    """Fees, slippage and funding, as fractions."""

    maker: Decimal = Decimal("0.0002")
    taker: Decimal = Decimal("0.0004")
    slippage_min: Decimal = Decimal("0.0002")
    slippage_max: Decimal = Decimal("0.0005")
    slippage_per_volatility: Decimal = Field(
        Decimal("0.005"), ge=0, description="added per unit of daily volatility: 1 bp at 0.02"
    )
    slippage_per_notional: Decimal = Field(
        Decimal("1e-9"), ge=0, description="added per unit of notional: 1 bp per 100,000"
    )
    funding_8h: Decimal = Decimal("0.0001")
    volatility_bars: int = Field(20, ge=2, description="returns behind the paper slippage")


class LedgerSettings(Section):
    """The durable record."""

    busy_timeout_s: float = Field(5, gt=0, description="how long a write waits for another's")


class EngineSettings(Section):
    """The policy's loop."""

    strategy: str = "tradewind"
    cycle_s: float = Field(30, gt=0)
    request_timeout_s: float = Field(3, gt=0)
    initial_cash: Decimal = Field(Decimal(10_000), gt=0)
    time_exit_horizons: float = Field(2.0, gt=0, description="time exit after this many horizons")
    lease_s: float = Field(30, gt=0, description="a second engine is refused while the lease lives")
    require_edge: bool = Field(True, description="refuse an entry without positive net edge")
    require_in_range: bool = Field(
        True, description="refuse an entry on inputs outside the model's training range"
    )
    entry_wait_bars: int = Field(1, ge=0, description="bars an unfilled entry may be late")
    poll_s: float = Field(0.25, gt=0, description="how often the loop looks for a new bar")


class UpSettings(Section):
    """How `tradewind up` watches its processes."""

    answer_s: float = Field(3, gt=0, description="how long a probe waits for its answer")
    probe_starting_s: float = Field(0.5, gt=0, description="between looks at one not yet healthy")
    probe_healthy_s: float = Field(5, gt=0, description="between looks at a healthy one")
    start_limit_s: float = Field(240, gt=0, description="not healthy by then: started again")
    silent_limit_s: float = Field(
        120, gt=0, description="there but not answering for so long: killed and started again"
    )
    engine_silent_s: float = Field(
        90, gt=0, description="an engine that told nothing for so long is not well"
    )
    quick_death_s: float = Field(10, gt=0, description="healthy for less: a quick death")
    quick_deaths: int = Field(5, ge=1, description="in a row: the process is given up")
    backoff_s: float = Field(0.5, ge=0, description="pause after a quick death; doubled at each")
    backoff_max_s: float = Field(
        30, ge=0, description="longest pause, reached where quick_deaths is raised above 7"
    )
    stop_limit_s: float = Field(20, gt=0, description="a process that stops later is killed")
    retry_s: float = Field(5, gt=0, description="before what failed (full disk) is tried again")
    log_limit_mib: float = Field(20, gt=0, description="a longer log is cut, one older part kept")


PROFILE_SIZES: dict[Profile, dict[str, Any]] = {
    Profile.FULL: {},
    Profile.QUICK: {
        "training": {
            "epochs": 2,
            "max_epoch_samples": 3000,
            "walk_forward_folds": 5,
            "fold_days": 14,
            "deep_folds": 2,
            "bootstrap_samples": 300,
            "judge_passes": 5,
            "judge_stride": 3,
            "calibrate_stride": 8,
        }
    },
}


class ProfileSource(PydanticBaseSettingsSource):
    """The lowest source: sizes of the chosen profile, under everything a user sets."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return nothing: this source answers whole sections at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the sizes of the profile that the sources above have chosen."""
        try:
            profile = Profile(self.current_state.get("profile", Profile.FULL))
        except ValueError:  # the validation that follows names the bad value
            return {}
        return PROFILE_SIZES[profile]


class Settings(BaseSettings):
    """The whole tree.

    ``data`` (environment ``TRADEWIND_DATA``) is a folder of sets; set but unreadable is an
    error, never a fallback. ``home`` holds all embedded state.
    """

    model_config = SettingsConfigDict(
        env_prefix="TRADEWIND_",
        env_nested_delimiter="__",
        toml_file="tradewind.toml",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # an input may be a URL with a password
    )

    home: Path = Path("var")
    data: Path | None = None
    profile: Profile = Profile.FULL
    clock: Literal["wall", "replay"] = "wall"
    ledger_url: str | None = Field(None, description="SQLAlchemy URL; None: SQLite under `home`")
    dagster_database_url: DagsterDatabaseUrl | None = Field(
        None, description="PostgreSQL URL of Dagster's storage; None: SQLite under `home`"
    )
    store_url: str | None = Field(
        None, description="folder or object store (s3://bucket/prefix); None: under `home`"
    )
    market: MarketSettings = MarketSettings()
    retention: RetentionSettings = RetentionSettings()
    quality: QualitySettings = QualitySettings()
    features: FeatureSettings = FeatureSettings()
    regimes: RegimeSettings = RegimeSettings()
    training: TrainingSettings = TrainingSettings()
    search: SearchSettings = SearchSettings()
    boosted: BoostedSettings = BoostedSettings()
    deep: DeepSettings = DeepSettings()
    nhits: NHitsSettings = NHitsSettings()
    patchtst: PatchTSTSettings = PatchTSTSettings()
    gru: GRUSettings = GRUSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    gates: GateSettings = GateSettings()
    live_metrics: LiveMetricSettings = LiveMetricSettings()
    drift: DriftSettings = DriftSettings()
    retrain_triggers: RetrainTriggerSettings = RetrainTriggerSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    registry: RegistrySettings = RegistrySettings()
    links: LinkSettings = LinkSettings()
    serving: ServingSettings = ServingSettings()
    thresholds: ThresholdSettings = ThresholdSettings()
    sizing: SizingSettings = SizingSettings()
    risk: RiskSettings = RiskSettings()
    costs: CostSettings = CostSettings()
    ledger: LedgerSettings = LedgerSettings()
    engine: EngineSettings = EngineSettings()
    up: UpSettings = UpSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: arguments, environment, then the file."""
        return (
            init_settings,
            env_settings,
            TomlConfigSettingsSource(settings_cls),
            ProfileSource(settings_cls),
        )

    @property
    def store_root(self) -> Path:
        """Return the folder of Parquet partitions."""
        return self.home / "store"

    @property
    def store_place(self) -> Path | str:
        """Return where the store is: the URL that is set, else the folder under `home`."""
        return self.store_url or self.store_root

    @property
    def ledger_database_url(self) -> str:
        """Return the SQLAlchemy URL of the ledger."""
        return self.ledger_url or f"sqlite:///{(self.home / 'ledger.db').absolute()}"

    @property
    def mlflow_tracking_uri(self) -> str:
        """Return the MLflow tracking URI."""
        if self.registry.tracking_uri:
            return self.registry.tracking_uri
        return f"sqlite:///{(self.home / 'mlflow' / 'mlflow.db').absolute()}"

    @property
    def mlflow_artifacts(self) -> Path:
        """Return the artifact folder used with the embedded tracking store."""
        return (self.home / "mlflow" / "artifacts").absolute()


def load_settings(**overrides: Any) -> Settings:
    """Build the settings, turning a validation error into one clear line.

    Raises
    ------
    TradewindError
        ``bad_setting``, naming the setting, the value and what is allowed.
    """
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"]) or "(root)"
        variable = "TRADEWIND_" + "__".join(str(part) for part in first["loc"]).upper()
        raise TradewindError(
            ErrorCode.BAD_SETTING,
            mask_passwords(f"setting {path} = {first.get('input')!r}: {first['msg']}"),
            f"Correct it in tradewind.toml or in the environment variable {variable}",
        ) from error
    except ValueError as error:
        raise TradewindError(
            ErrorCode.BAD_SETTING,
            f"settings cannot be read: {error}",
            "Correct tradewind.toml or the TRADEWIND_* variable of that section; a list is JSON, "
            "as in TRADEWIND_MARKET__SYMBOLS='[\"BTCUSDT\"]'",
        ) from error
    _check_data_folder(settings)
    return settings


def _check_data_folder(settings: Settings) -> None:
    if settings.data is None:
        return
    try:
        next(settings.data.iterdir(), None)
    except OSError as error:
        raise TradewindError(
            ErrorCode.DATA_UNREADABLE,
            f"TRADEWIND_DATA = {settings.data} cannot be read ({error.strerror})",
            "Point it at a folder of sets such as binance_usdm_perp_15m, or unset it",
        ) from error
