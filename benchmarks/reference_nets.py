"""Our N-HiTS and PatchTST beside a maintained implementation, on a small public series.

    python -m venv /tmp/reference && . /tmp/reference/bin/activate
    pip install neuralforecast==3.3.0 polars==2.1.0 pydantic-settings safetensors
    PYTHONPATH=. python benchmarks/reference_nets.py [--seeds 5] [--steps 300]

neuralforecast pulls ray and lightning and wants another pandas, so it gets an environment of its
own; it is no dependency of the project. The series is AirPassengers, which it ships: 144 months,
fitted on the first 120 and forecast 12 months ahead from each of the 13 months that follow,
without refitting. Both sides get the same sizes, window scaling, optimiser, steps and loss (MAE).
Our nets are the ones that serve, with the path of a point forecast in the place of the heads.
Prints ONE JSON object: parameters, and the mean absolute error over the seeds, beside the
seasonal naive forecast.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tradewind.models._mc_dropout import Dropout, NoDropout, TrainingDropout, draw_pool
from tradewind.models._nhits import NHitsNet, NHitsShape
from tradewind.models._patchtst import PatchTSTNet, PatchTSTShape

WINDOW, HORIZON, ORIGINS, SEASON = 36, 12, 13, 12
RATE, DECAYS = 1e-3, 3
NHITS = NHitsShape(
    window=WINDOW,
    inputs=1,
    horizon=HORIZON,
    pooling=(2, 2, 1),
    downsampling=(4, 2, 1),
    hidden=256,
    layers=3,  # theirs has a third matrix too, before the first activation
)
PATCHTST = PatchTSTShape(
    window=WINDOW, inputs=1, patch=8, stride=4, d_model=64, heads=4, layers=3, feedforward=128
)
DROPOUT = 0.1
Forecast = Callable[[Tensor, Dropout], Tensor]
Scores = dict[str, Any]


def our_nhits() -> tuple[nn.Module, Forecast]:
    """Return the net and its forecast of standardised windows (B, W), shape (B, H)."""
    net = NHitsNet(NHITS)

    def forecast(windows: Tensor, dropout: Dropout) -> Tensor:
        centre, spread = windows.mean(1, keepdim=True), windows.std(1, keepdim=True)
        scaled = (windows - centre) / spread
        path = net.path(scaled[..., None], dropout)[:, 1]
        return (scaled[:, -1:] + path) * spread + centre

    return net, forecast


def our_patchtst() -> tuple[nn.Module, Forecast]:
    """Return the net, and its forecast in which the last value is the level."""
    net = PatchTSTNet(PATCHTST)
    net.heads = nn.Linear(PATCHTST.patches * PATCHTST.d_model, HORIZON)

    def forecast(windows: Tensor, dropout: Dropout) -> Tensor:
        level, spread = windows[:, -1:], windows.std(1, keepdim=True)
        tokens = net.encode(((windows - level) / spread)[..., None], dropout)
        ahead: Tensor = net.heads(tokens.flatten(1))
        return ahead * spread + level

    return net, forecast


def ours(
    make: Callable[[], tuple[nn.Module, Forecast]], y: np.ndarray, seed: int, steps: int, p: float
) -> tuple[int, np.ndarray]:
    """Train on what lies before the first origin; return parameters and forecasts.

    The loss is in the units that the reference has it in: of the window's standard deviation for
    N-HiTS, of the series for PatchTST, whose scaling is inside the net.
    """
    torch.manual_seed(seed)
    net, forecast = make()
    series = torch.tensor(y, dtype=torch.float32)
    first = len(y) - HORIZON - ORIGINS + 1
    rows = series[:first].unfold(0, WINDOW + HORIZON, 1)
    inputs, targets = rows[:, :WINDOW], rows[:, WINDOW:]
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, steps // DECAYS, gamma=0.5)
    rng = np.random.default_rng(seed)
    dropout = TrainingDropout(draw_pool(1 << 21, p, rng), rng) if p else NoDropout()
    scale = inputs.std(1, keepdim=True) if make is our_nhits else torch.ones(())
    for _ in range(steps):
        optimizer.zero_grad()
        loss = ((forecast(inputs, dropout) - targets) / scale).abs().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        asked = series[first - WINDOW : len(y) - HORIZON].unfold(0, WINDOW, 1)
        found = forecast(asked, NoDropout()).numpy()
    return sum(part.numel() for part in net.parameters()), found


def theirs(make: Callable[[int, int], Any], seed: int, steps: int) -> tuple[int, np.ndarray]:
    """Return parameters and forecasts of neuralforecast's model, by its own cross-validation."""
    from neuralforecast import NeuralForecast
    from neuralforecast.utils import AirPassengersDF

    job = NeuralForecast(models=[make(seed, steps)], freq="ME")
    found = job.cross_validation(
        AirPassengersDF, n_windows=ORIGINS, step_size=1, refit=False, verbose=False
    )
    name = str(job.models[0])
    values = found.sort_values(["cutoff", "ds"])[name].to_numpy().reshape(ORIGINS, HORIZON)
    return sum(part.numel() for part in job.models[0].parameters()), values


def their_nhits(seed: int, steps: int) -> Any:
    """Return neuralforecast's N-HiTS of our sizes."""
    from neuralforecast import models

    return models.NHITS(
        n_pool_kernel_size=list(NHITS.pooling),
        n_freq_downsample=list(NHITS.downsampling),
        mlp_units=[[NHITS.hidden, NHITS.hidden]] * (NHITS.layers - 1),
        scaler_type="standard",
        **_common(seed, steps),
    )


def their_patchtst(seed: int, steps: int) -> Any:
    """Return neuralforecast's PatchTST of our sizes."""
    from neuralforecast import models

    return models.PatchTST(
        encoder_layers=PATCHTST.layers,
        n_heads=PATCHTST.heads,
        hidden_size=PATCHTST.d_model,
        linear_hidden_size=PATCHTST.feedforward,
        patch_len=PATCHTST.patch,
        stride=PATCHTST.stride,
        dropout=DROPOUT,
        fc_dropout=DROPOUT,
        **_common(seed, steps),
    )


def _common(seed: int, steps: int) -> dict[str, Any]:
    return {
        "h": HORIZON,
        "input_size": WINDOW,
        "max_steps": steps,
        "windows_batch_size": None,  # all windows in every step, as ours
        "training_data_availability_threshold": 1.0,  # whole windows only, as ours
        "learning_rate": RATE,
        "num_lr_decays": DECAYS,
        "random_seed": seed,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "logger": False,
    }


def score(y: np.ndarray, forecasts: np.ndarray) -> float:
    """Return the mean absolute error of forecasts (origins, H)."""
    truth = np.lib.stride_tricks.sliding_window_view(y[-HORIZON - ORIGINS + 1 :], HORIZON)
    return float(np.abs(forecasts - truth).mean())


def main() -> None:
    """Run both sides in turn for every seed, and print the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args()
    try:
        import neuralforecast
        from neuralforecast.utils import AirPassengersDF
    except ImportError as error:
        raise SystemExit(f"{error}. It is optional; see the head of this file") from error
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    y = AirPassengersDF["y"].to_numpy()
    pairs = {
        "nhits": (our_nhits, their_nhits, 0.0),
        "patchtst": (our_patchtst, their_patchtst, DROPOUT),
    }
    result: Scores = {
        "reference": f"neuralforecast {neuralforecast.__version__}",
        "series": "AirPassengers",
        "seeds": given.seeds,
        "steps": given.steps,
    }
    for family, (make, reference, p) in pairs.items():
        runs: dict[str, list[tuple[int, float, float]]] = {"ours": [], "theirs": []}
        for seed in range(1, given.seeds + 1):
            for side, done in runs.items():
                started = time.perf_counter()
                if side == "ours":
                    size, found = ours(make, y, seed, given.steps, p)
                else:
                    size, found = theirs(reference, seed, given.steps)
                done.append((size, score(y, found), time.perf_counter() - started))
        result[family] = {
            side: {
                "parameters": done[0][0],
                "mae": round(float(np.mean([run[1] for run in done])), 2),
                "mae_std": round(float(np.std([run[1] for run in done], ddof=1)), 2),
                "seconds": round(float(np.median([run[2] for run in done])), 2),
            }
            for side, done in runs.items()
        }
        result[family]["mae_ratio"] = round(
            result[family]["ours"]["mae"] / result[family]["theirs"]["mae"], 3
        )
    origins = np.arange(len(y) - HORIZON - ORIGINS, len(y) - HORIZON) + 1
    naive = np.stack([y[at - SEASON : at - SEASON + HORIZON] for at in origins])
    result["seasonal_naive_mae"] = round(score(y, naive), 2)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
