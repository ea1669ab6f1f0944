"""Writes statistics of real images, with which FID can be measured in place of them."""

from collections.abc import Sequence
from pathlib import Path

import torch

from gan.build import load_state
from gan.config import Config
from gan.config.loading import override_config, validated
from gan.measuring.checkpoints import refuse_changes
from gan.measuring.checks import user_errors
from gan.measuring.named import write_named_statistics
from gan.measuring.real import RealImages
from gan.runs.checkpoint import Checkpoint
from gan.runtime.distributed import Processes


def write_statistics(
    file: Path,
    source: Config | Checkpoint,
    overrides: Sequence[str],
    reference: Path | None,
    device: torch.device,
    processes: Processes,
) -> str:
    """Writes the statistics of reference images, with which FID can be measured in place of them; returns a line.

    Args:
        source: configuration of the images, or a checkpoint, whose run must have been trained on them.
        overrides: settings of a checkpoint to change.
        reference: images in place of the configured ones, see `measure_against`.

    Raises:
        UserError: the images or the settings cannot be used, or the file cannot be written.
    """
    with user_errors():
        if isinstance(source, Checkpoint):
            place = str(source.path)
            trained = validated(Config, source.config, place)
            config = override_config(trained, overrides, place)
            refuse_changes(config, trained, source.path)
            real = RealImages(config, device, processes)
            real.expect(load_state(source, config), source.path, source.path.parent.parent)
            origin = real.write_statistics(file)
        elif reference is not None:
            origin = write_named_statistics(reference, source, device, file)
        else:
            origin = RealImages(source, device, processes).write_statistics(file)
    return f"{file}: {origin.summary}"


__all__ = ["write_statistics"]
