"""Records of a discriminator's gradients, which runs with train.gradients_every write. Imports no torch."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from gan.config import Config
from gan.config.loading import load
from gan.errors import CheckpointError, ConfigError
from gan.runs.finding import JSONL, read_log

OF_LAYERS = {"gradient": "gradients", "gradient_used": "gradients_used", "variance": "variance"}
"""Maps a value of each layer to the beginning of its tag."""
OF_SPECTRA = {
    "sigma": "sigma",
    "stable_rank": "stable_rank",
    "normalized_sigma": "sigma_normalized",
    "normalized_stable_rank": "stable_rank_normalized",
    "operator_norm": "operator_norm",
}
"""The same of each layer's spectrum; norms as operators are not known of all layers."""
LARGEST = 1e300
"""Larger values and NaN cannot be drawn."""


def scalars_of(gradients: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a record of `gan.training.gradients.Gradients` by their tags in TensorBoard.

    The tags are gradients/whole; gradients/LAYER, gradients_used/LAYER and variance/LAYER; slopes/real_mean,
    slopes/real_min, slopes/real_max and saturated/real; and the last four with "fake".

    Raises:
        AttributeError, KeyError, TypeError, ValueError: the record has another form.
    """
    scalars = _of_layers(OF_LAYERS, gradients["layers"].items())
    scalars["gradients/whole"] = float(gradients["whole"])
    for images in ("real", "fake"):
        for name, value in zip(("mean", "min", "max"), gradients[f"slope_{images}"], strict=True):
            scalars[f"slopes/{images}_{name}"] = float(value)
        if f"saturated_{images}" in gradients:
            scalars[f"saturated/{images}"] = float(gradients[f"saturated_{images}"])
    return scalars


def read_gradients(run: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reads the discriminator's gradients and spectra of a run: (steps, values) of each tag, by ascending step.

    The tags are those of `scalars_of`, and sigma/LAYER, stable_rank/LAYER, sigma_normalized/LAYER,
    stable_rank_normalized/LAYER and operator_norm/LAYER, which have the steps of train.log_every. Values that are not
    finite and lines of another form are skipped.

    Raises:
        CheckpointError: there is no log of a run.
        ConfigError: the run recorded no gradients.
    """
    if not (run / JSONL).is_file():
        raise CheckpointError(f"{run}: holds no {JSONL}; expected the folder of a run of gan-train")
    points: dict[str, dict[int, float]] = {}
    for record in read_log(run):
        with suppress(AttributeError, KeyError, TypeError, ValueError):
            for tag, value in _scalars(record).items():
                if abs(value) < LARGEST:
                    points.setdefault(tag, {})[int(record["step"])] = value
    if "gradients/whole" not in points:
        raise ConfigError(
            f"{run}: holds no gradients; train with --set train.gradients_every=100, or another number of steps. "
            "A run that is not finished can be resumed with it"
        )
    ordered = {tag: sorted(found.items()) for tag, found in points.items()}
    return {
        tag: (np.array([step for step, _ in pairs]), np.array([value for _, value in pairs]))
        for tag, pairs in ordered.items()
    }


def seeds_together(runs: Sequence[Path]) -> dict[str, list[Path]]:
    """Groups runs whose settings differ in nothing but the seed, in order.

    Returns:
        The runs by a label: the name of the first folder, without a seed at its end; its path if others have this name.
    """
    groups: dict[str, list[Path]] = {}
    for run in runs:
        groups.setdefault(_identity_but_seed(run), []).append(run)
    names = [re.sub(r"-seed\d+$", "", several[0].resolve().name) for several in groups.values()]
    labels = [
        name if names.count(name) == 1 else str(several[0])
        for name, several in zip(names, groups.values(), strict=True)
    ]
    return dict(zip(labels, groups.values(), strict=True))


def _identity_but_seed(run: Path) -> str:
    """Returns the identity that a run would have with seed 0; its path if its configuration cannot be read."""
    try:
        return load(Config, run / "config.yaml", ["train.seed=0"]).identity()
    except ConfigError:
        return str(run)


def _scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a line of metrics.jsonl by tag; {} for a line of another kind."""
    if "gradients" in record:
        return scalars_of(record["gradients"])
    return _of_layers(OF_SPECTRA, [(layer["name"], layer) for layer in record.get("layers", ())])


def _of_layers(tags: Mapping[str, str], layers: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, float]:
    """Returns values of layers by tag: the beginning of the tag, a slash and the name of the layer."""
    return {
        f"{tag}/{name}": float(layer[value])
        for value, tag in tags.items()
        for name, layer in layers
        if layer.get(value) is not None
    }
