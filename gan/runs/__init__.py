"""Runs: their folders, checkpoints and logs, and the engine that trains them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def train(
    config: str | Path,
    run: str | Path | None = None,
    overrides: Sequence[str] = (),
    variants: Sequence[str] = (),
    **options: Any,
) -> Path:
    """Trains a GAN or a classifier as gan-train and gan-train-classifier do; returns the run folder.

    Args:
        config: file, or name of an installed configuration.
        run: folder of the run; by default runs/<name>-<time>.
        overrides: settings such as "train.steps=20".
        variants: names of variants to apply to the configuration, such as "small".
        options: `start` (--from), `resume`, `skip_damaged`, `stop_after`, `max_minutes`, `device`, `deterministic` and
            `profile`, the options of the commands.

    Raises:
        UserError: the configuration, the device, the data or the folder cannot be used, or the run diverged.
    """
    from gan.config.stored import load_experiment
    from gan.runs import engine

    settings = load_experiment(config, overrides, variants)
    command = f"gan.runs.train({str(config)!r}, overrides={list(overrides)}, variants={list(variants)})"
    return engine.train(settings, command=command, run=None if run is None else Path(run), **options)


__all__ = ["train"]
