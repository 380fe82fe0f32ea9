"""The MLflow model of a bundle, as code: MLflow runs this file to load a version.

Nothing is unpickled; the bundle's own files hold every weight. `registry.pyfunc_io` says
what goes in and what comes out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel


class BundleModel(PythonModel):  # type: ignore[misc]  # mlflow is untyped
    """Predicts with the bundle that lies in the model's artifacts."""

    # MLflow would ask for type hints it can validate by; the signature validates instead.
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        """Load the bundle, after it has verified the digest of its files."""
        from tradewind.models.bundle import ModelBundle

        self.bundle = ModelBundle.load(Path(context.artifacts["bundle"]))

    def predict(self, context, model_input, params):  # type: ignore[no-untyped-def]
        """Return the forecast of `model_input`, by name, over ``params["n_samples"]`` passes."""
        from registry.pyfunc_io import from_input, to_output

        samples = from_input(model_input, self.bundle.meta)
        return to_output(self.bundle.predict(samples, n_samples=int(params["n_samples"])))


mlflow.models.set_model(BundleModel())
