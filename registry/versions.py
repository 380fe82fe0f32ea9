"""Registered versions: a bundle logged as an MLflow model, found again, fetched and verified.

A version's files are content-addressed by the tag ``digest``: registering the same bundle
of the same run twice gives the same version, and what is fetched is what was registered.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from registry._model_files import DIGEST_TAG, bundle_digest, fetch, log_model
from registry.tracking import Tracking, require_name
from tradewind.contracts import POOLED, registered_name
from tradewind.errors import ErrorCode, TradewindError

GATES_TAG = "gates"
GATE_REASONS_TAG = "gate_reasons"
METRICS_TAG = "metrics"
GATES_PASSED = "passed"
GATES_FAILED = "failed"
GATES_UNKNOWN = "unknown"
META_TAGS = (
    "family",
    "key",
    "symbols",
    "timeframe",
    "horizon",
    "feature_version",
    "data_fingerprint",
    "train_start_ms",
    "train_end_ms",
    "data_end_ms",
    "calibrated_end_ms",
    "seed",
    "skill",
    "base_rate",
    GATES_TAG,
    METRICS_TAG,
)
OURS = "name LIKE 'tradewind.%'"
PAGE = 1000


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of a registered model, as the registry knows it."""

    name: str
    version: int
    run_id: str
    digest: str
    source: str
    created_ms: int
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    description: str = ""

    @property
    def label(self) -> str:
        """Return ``name/version``, how predictions and errors name a version."""
        return f"{self.name}/{self.version}"

    @property
    def family(self) -> str:
        """Return the model family, the middle part of the name."""
        return self.name.split(".")[1]

    @property
    def key(self) -> str:
        """Return the symbol, or POOLED, the last part of the name."""
        return self.name.split(".")[2]

    @property
    def gates(self) -> str:
        """Return "passed", "failed", or "unknown" before the gates have run."""
        return self.tags.get(GATES_TAG, GATES_UNKNOWN)

    @property
    def metrics(self) -> dict[str, float]:
        """Return the metrics recorded with the version, empty if none were."""
        recorded: dict[str, float] = json.loads(self.tags.get(METRICS_TAG, "{}"))
        return recorded


def register_bundle(
    tracking: Tracking,
    folder: Path,
    *,
    run_id: str,
    name: str,
    input_example: Any,
    output_example: Any,
    description: str = "",
    model_description: str = "",
    tags: Mapping[str, object] | None = None,
) -> RegisteredVersion:
    """Log the bundle in ``folder`` as an MLflow model of ``run_id`` and register it.

    Idempotent: the same digest of the same run under the same name is registered once,
    also when an earlier call was killed half-way.

    Parameters
    ----------
    name
        ``tradewind.{family}.{SYMBOL or POOLED}``.
    input_example, output_example
        What the model takes and gives, as `registry.pyfunc_io.example_of` makes them; the
        signature is inferred from them.
    description, model_description
        Markdown on the page of the version, and on that of the registered model.
    tags
        Added to those read from the bundle's meta (which they override).

    Raises
    ------
    TradewindError
        ``bad_input`` for a foreign name, a bundle of another name or an unknown run;
        ``model_unusable`` for a folder without a sound bundle.
    """
    require_name(name)
    meta = _read_meta(folder)
    if registered_name(meta["family"], meta["key"]) != name:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"the bundle in {folder} is of {meta['family']}.{meta['key']}, not of {name}",
            "Register it under its own name",
        )
    digest = bundle_digest(folder)
    existing = _find(tracking, name, run_id, digest)
    if existing is not None:
        return existing
    all_tags = _version_tags(meta, digest, tags or {})
    with tracking.translated():
        tracking.client.get_run(run_id)  # an unknown run is refused before anything is written
        source, model_id = log_model(
            tracking, folder, run_id, name, digest, (input_example, output_example)
        )
        _ensure_registered_model(tracking, name, model_description)
        created = tracking.client.create_model_version(
            name,
            source,
            run_id=run_id,
            tags=all_tags,
            description=description,
            model_id=model_id,
        )
    return _from_entity(created)


def fetch_bundle(
    tracking: Tracking,
    name: str,
    *,
    version: int | None = None,
    alias: str | None = None,
    cache_dir: Path,
) -> Path:
    """Return a local folder with the bundle of a version, its digest verified.

    A copy already under ``cache_dir`` is used only if its digest is right; a wrong one is
    fetched again.

    Raises
    ------
    TradewindError
        ``bad_input`` unless exactly one of ``version`` and ``alias`` is given and exists;
        ``model_unusable`` if what the registry holds is not what was registered.
    """
    if (version is None) == (alias is None):
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"fetching {name} with version={version} and alias={alias!r}",
            "Give exactly one of version and alias",
        )
    found = get_version(tracking, name, version=version, alias=alias)
    target = cache_dir / found.name / str(found.version)
    return fetch(tracking, found.label, found.source, found.digest, target)


def get_version(
    tracking: Tracking, name: str, *, version: int | None = None, alias: str | None = None
) -> RegisteredVersion:
    """Return a version by number, or by alias when ``version`` is None.

    Raises
    ------
    TradewindError
        ``bad_input`` if it does not exist; those that do are named.
    """
    from mlflow.exceptions import MlflowException

    with tracking.translated():
        if version is None:
            return _from_entity(tracking.client.get_model_version_by_alias(name, str(alias)))
        try:
            return _from_entity(tracking.client.get_model_version(name, str(version)))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    raise _unknown(tracking, name, version)


def _unknown(tracking: Tracking, name: str, version: int) -> TradewindError:
    """Return the error for a version that does not exist, with what does."""
    there = [item.version for item in list_versions(tracking, name)]
    if there:
        return TradewindError(
            ErrorCode.BAD_INPUT,
            f"{name} has no version {version}",
            f"Its versions: {', '.join(map(str, there))}",
        )
    names = ", ".join(sorted(alias_table(tracking))) or "none yet: run `tradewind train`"
    return TradewindError(
        ErrorCode.BAD_INPUT, f"no model is registered as {name}", f"Registered models: {names}"
    )


def resolve(
    tracking: Tracking, family: str, symbol: str, alias: str = "champion"
) -> RegisteredVersion | None:
    """Return the version that serves ``symbol``: its own, else the pooled one, else None."""
    for key in (symbol, POOLED):
        found = find_alias(tracking, registered_name(family, key), alias)
        if found is not None:
            return found
    return None


def find_alias(tracking: Tracking, name: str, alias: str) -> RegisteredVersion | None:
    """Return the version that ``alias`` points to, or None if there is no such alias."""
    from mlflow.exceptions import MlflowException

    with tracking.translated():
        try:
            return _from_entity(tracking.client.get_model_version_by_alias(name, alias))
        except MlflowException as error:
            # An unknown name and an unknown alias are answers here, told by these codes.
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def list_versions(tracking: Tracking, name: str | None = None) -> list[RegisteredVersion]:
    """Return every version of ``name``, or of all our models, newest first in each name."""
    clause = f"name = '{require_name(name)}'" if name else OURS
    table = alias_table(tracking)
    with tracking.translated():
        entities = list(_pages(tracking.client.search_model_versions, clause))
    versions = [_from_entity(entity, table) for entity in entities]
    return sorted(versions, key=lambda item: (item.name, -item.version))


def alias_table(tracking: Tracking) -> dict[str, dict[str, int]]:
    """Return {registered name: {alias: version}} in one request; cheap enough to poll."""
    with tracking.translated():
        models = list(_pages(tracking.client.search_registered_models, OURS))
    return {
        model.name: {alias: int(version) for alias, version in model.aliases.items()}
        for model in models
    }


def _pages(search: Any, clause: str) -> Iterator[Any]:
    token = None
    while True:
        page = search(clause, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _from_entity(
    entity: Any, table: Mapping[str, Mapping[str, int]] | None = None
) -> RegisteredVersion:
    version = int(entity.version)
    if table is None:
        aliases = tuple(sorted(entity.aliases))
    else:
        pairs = table.get(entity.name, {}).items()
        aliases = tuple(sorted(alias for alias, target in pairs if target == version))
    return RegisteredVersion(
        name=entity.name,
        version=version,
        run_id=entity.run_id or "",
        digest=entity.tags.get(DIGEST_TAG, ""),
        source=entity.source,
        created_ms=int(entity.creation_timestamp),
        tags=dict(entity.tags),
        aliases=aliases,
        description=entity.description or "",
    )


def _find(tracking: Tracking, name: str, run_id: str, digest: str) -> RegisteredVersion | None:
    clause = f"name = '{name}' AND run_id = '{run_id}' AND tags.`{DIGEST_TAG}` = '{digest}'"
    with tracking.translated():
        found = tracking.client.search_model_versions(clause)
        if not found:
            return None
        oldest = min(int(entity.version) for entity in found)
        # Read again by number: a search does not fill in the aliases.
        return _from_entity(tracking.client.get_model_version(name, str(oldest)))


def _read_meta(folder: Path) -> dict[str, Any]:
    from tradewind.models.bundle import read_meta

    return read_meta(folder).model_dump(mode="json")


def _version_tags(
    meta: Mapping[str, Any], digest: str, given: Mapping[str, object]
) -> dict[str, str]:
    tags: dict[str, object] = {GATES_TAG: GATES_UNKNOWN, "trained_at": _iso(meta["created_ms"])}
    tags |= {name: meta[name] for name in META_TAGS if meta.get(name) not in (None, "", {})}
    tags |= given
    return {name: _tag_text(value) for name, value in tags.items()} | {DIGEST_TAG: digest}


def _tag_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _iso(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="seconds")


def _ensure_registered_model(tracking: Tracking, name: str, description: str) -> None:
    from mlflow.exceptions import MlflowException

    family, key = name.split(".")[1:]
    try:
        tracking.client.create_registered_model(
            name, tags={"family": family, "key": key}, description=description or None
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        known = tracking.client.get_registered_model(name)
        if description and not known.description:  # a person's own text stays
            tracking.client.update_registered_model(name, description)
