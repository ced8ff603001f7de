"""Trains small models on scikit-learn's digits and logs them with the real W&B SDK.

The losses and accuracies are real: every run fits another model or other hyper-parameters. One
run diverges and fails, as runs do.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import wandb
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

EPOCHS = 40
DIVERGED = 20.0

MODELS: list[dict[str, Any]] = [
    {"model": "mlp", "lr": 0.001, "hidden": 32},
    {"model": "mlp", "lr": 0.003, "hidden": 32},
    {"model": "mlp", "lr": 0.01, "hidden": 32},
    {"model": "mlp", "lr": 0.003, "hidden": 64},
    {"model": "mlp", "lr": 0.001, "hidden": 128},
    {"model": "mlp", "lr": 0.05, "hidden": 16},
    {"model": "linear", "lr": 0.0001, "hidden": None},
    {"model": "linear", "lr": 0.001, "hidden": None},
    {"model": "linear", "lr": 300.0, "hidden": None},
]


def main(entity: str, project: str) -> None:
    """Train every model; print one line each."""
    warnings.filterwarnings("ignore", module="sklearn")
    digits = load_digits()
    data = train_test_split(
        digits.data / 16.0, digits.target, test_size=0.3, random_state=0, stratify=digits.target
    )
    for config in MODELS:
        steps, accuracy = train(entity, project, config, data)
        name = f"{config['model']} lr={config['lr']:g} hidden={config['hidden']}"
        print(f"{name:<32} {steps:>3} epochs  val_acc {accuracy:.4f}", flush=True)


def train(
    entity: str, project: str, config: dict[str, Any], data: list[np.ndarray]
) -> tuple[int, float]:
    """Fit one model, logging each epoch; returns (epochs, last validation accuracy)."""
    run = wandb.init(
        entity=entity,
        project=project,
        name=f"{config['model']}-lr{config['lr']:g}-h{config['hidden'] or 0}",
        group=config["model"],
        tags=["demo", "digits"],
        config={**config, "epochs": EPOCHS, "data": {"name": "digits", "test_size": 0.3}},
    )
    steps, accuracy, diverged = 0, 0.0, False
    for row in epochs(config, data):
        run.log(row)
        steps, accuracy = steps + 1, row["val_acc"]
        if not row["train_loss"] < DIVERGED:
            diverged = True
            break
    run.finish(exit_code=int(diverged))
    return steps, accuracy


def epochs(config: dict[str, Any], data: list[np.ndarray]) -> Iterator[dict[str, float]]:
    """Yield the metrics of one epoch after the other."""
    train_x, val_x, train_y, val_y = data
    model = build(config)
    order = np.random.default_rng(0)
    for epoch in range(EPOCHS):
        shuffled = order.permutation(len(train_x))
        model.partial_fit(train_x[shuffled], train_y[shuffled], classes=np.arange(10))
        yield {
            "epoch": epoch,
            "train_loss": loss(model, train_x, train_y),
            "val_loss": loss(model, val_x, val_y),
            "val_acc": float(model.score(val_x, val_y)),
        }


def build(config: dict[str, Any]) -> Any:
    """The model of one configuration."""
    if config["model"] == "mlp":
        return MLPClassifier((config["hidden"],), learning_rate_init=config["lr"], random_state=0)
    return SGDClassifier(
        loss="log_loss", learning_rate="constant", eta0=config["lr"], random_state=0
    )


def loss(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    """Cross entropy; NaN once the weights are not finite."""
    probabilities = model.predict_proba(x)
    if not np.isfinite(probabilities).all():
        return float("nan")
    return float(log_loss(y, probabilities, labels=np.arange(10)))


if __name__ == "__main__":
    main(*sys.argv[1:3])
