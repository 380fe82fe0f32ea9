"""A version's files: written once as an MLflow model, read back only with the right digest."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from registry.tracking import Tracking
from tradewind.errors import ErrorCode, TradewindError

DIGEST_TAG = "digest"
BUNDLE_FOLDER = "bundle"
PYFUNC_SCRIPT = Path(__file__).with_name("_pyfunc_model.py")
PINNED = (
    "mlflow",
    "numpy",
    "lightgbm",
    "xgboost-cpu",
    "torch",
    "safetensors",
    "polars",
    "pydantic",
)


def log_model(
    tracking: Tracking,
    folder: Path,
    run_id: str,
    name: str,
    digest: str,
    examples: tuple[Any, Any],
) -> tuple[str, str]:
    """Write the bundle as an MLflow model of a run, once per digest.

    Parameters
    ----------
    examples
        An input and its output, from which the signature is inferred.

    Returns
    -------
    tuple[str, str]
        The artifact location and the model id.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model, infer_signature
    from mlflow.pyfunc import save_model

    input_example, output_example = examples
    parameters = {"n_samples": tracking.settings.serving.n_samples}
    client = tracking.client
    ready = _find_logged_model(tracking, run_id, name, digest)
    if ready is not None:
        return ready
    logged = client.create_logged_model(
        tracking.experiment_id,
        name=name.replace(".", "-"),
        source_run_id=run_id,
        tags={DIGEST_TAG: digest, "registered_name": name},
        model_type=name.split(".")[1],
    )
    with tempfile.TemporaryDirectory(prefix="tradewind-model-") as scratch:
        staged = Path(scratch, BUNDLE_FOLDER)
        shutil.copytree(folder, staged)
        save_model(
            path=str(Path(scratch, "model")),
            python_model=str(PYFUNC_SCRIPT),
            artifacts={BUNDLE_FOLDER: str(staged)},
            signature=infer_signature(input_example, output_example, parameters),
            input_example=input_example,
            pip_requirements=_requirements(),
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                model_uuid=logged.model_id,
                run_id=run_id,
                model_id=logged.model_id,
            ),
        )
        _forget_scratch(Path(scratch, "model"), name)
        client.log_model_artifacts(logged.model_id, str(Path(scratch, "model")))
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.artifact_location), str(logged.model_id)


def _forget_scratch(model: Path, name: str) -> None:
    """Take this disk's paths out of the MLmodel file; a model is loaded by relative ones."""
    from mlflow.models import Model

    described = Model.load(str(model))
    described.artifact_path = name
    for artifact in described.flavors["python_function"]["artifacts"].values():
        artifact["uri"] = artifact["path"]
    described.save(str(model / "MLmodel"))


def _find_logged_model(
    tracking: Tracking, run_id: str, name: str, digest: str
) -> tuple[str, str] | None:
    """Return a model that an earlier, interrupted call had finished logging."""
    from mlflow.entities import LoggedModelStatus

    found = tracking.client.search_logged_models(
        [tracking.experiment_id],
        filter_string=f"source_run_id = '{run_id}' AND tags.`{DIGEST_TAG}` = '{digest}' "
        f"AND tags.`registered_name` = '{name}'",
    )
    # The status cannot be filtered on: the SQL store compares its number with the word.
    for model in found:
        if model.status == LoggedModelStatus.READY:
            return str(model.artifact_location), str(model.model_id)
    return None


def _requirements() -> list[str]:
    pins = []
    for package in PINNED:
        with contextlib.suppress(PackageNotFoundError):
            pins.append(f"{package}=={version(package)}")
    return pins


def bundle_digest(folder: Path) -> str:
    """Return the digest that identifies the bundle, after verifying each of its files."""
    from tradewind.models.bundle import digest

    return digest(folder)


def fetch(tracking: Tracking, label: str, source: str, digest: str, target: Path) -> Path:
    """Return ``target`` holding the bundle at ``source``, fetched unless it is there already.

    Raises
    ------
    TradewindError
        ``model_unusable`` if the files of ``label`` cannot be read or are not those registered.
    """
    from filelock import FileLock

    if _holds(target, digest):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # One at a time, of all processes: what one has put there, no other takes away from a reader.
    with FileLock(target.with_name(f".{target.name}.lock")):
        if not _holds(target, digest):
            _fetch_into(tracking, label, source, digest, target)
    return target


def _fetch_into(tracking: Tracking, label: str, source: str, digest: str, target: Path) -> None:
    """Download the bundle beside ``target``, verify it, and put it in its place."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch:
        downloaded = _download(tracking, label, source, Path(scratch))
        if bundle_digest(downloaded) != digest:
            raise _unusable(label, f"do not have the registered digest {digest[:12] or '(none)'}")
        if target.exists():
            target.rename(Path(scratch, "replaced"))
        downloaded.rename(target)


def _download(tracking: Tracking, label: str, source: str, into: Path) -> Path:
    from mlflow.artifacts import download_artifacts

    uri = f"{source.rstrip('/')}/artifacts/{BUNDLE_FOLDER}"
    try:
        with tracking.translated():
            path = download_artifacts(
                artifact_uri=uri,
                dst_path=str(into),
                tracking_uri=tracking.uri,
                registry_uri=tracking.uri,
            )
    except TradewindError as error:
        if error.code is not ErrorCode.BAD_INPUT:
            raise
        raise _unusable(label, f"are not at {uri}") from error
    except OSError as error:
        raise _unusable(label, f"cannot be read ({error})") from error
    return Path(path)


def _holds(folder: Path, digest: str) -> bool:
    """Tell whether ``folder`` is the bundle of ``digest``; a damaged copy is not."""
    try:
        return folder.is_dir() and bundle_digest(folder) == digest
    except TradewindError as error:
        if error.code is not ErrorCode.MODEL_UNUSABLE:
            raise
        return False


def _unusable(label: str, why: str) -> TradewindError:
    name = label.rsplit("/", 1)[0]
    return TradewindError(
        ErrorCode.MODEL_UNUSABLE,
        f"the files of {label} {why}",
        f"Roll back with `tradewind rollback {name}`, or train again",
    )
