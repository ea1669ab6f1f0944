"""Steps "inception", "generation" and "divergence": the parts of an evaluation."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from benchmarks.evaluation import end_to_end_runs, feature_runs, random_images, random_inception
from benchmarks.sizes import SIZES, configure, make_trainer
from benchmarks.timing import interleave, summarize

from checking.conditions import Conditions, Record
from evaluation import neural_divergence
from evaluation.settings.presets import PRESETS
from gan.measuring.sampling import generate
from gan.normalization import spectra

SHARE = 0.25
"""Part of the step "divergence"'s time that the longer training of a preset may take."""


def inception(conditions: Conditions) -> Iterator[Record]:
    """Yields the times of features of 5,000 images, then of FID and IS of 2,500, both against torch-fidelity."""
    device, (count, few) = conditions.device, conditions.choose((5000, 2500), (20, 20))
    with tempfile.TemporaryDirectory() as folder:
        weights, both = random_inception(Path(folder) / "inception.pth"), random_images(count)
        features = interleave(feature_runs(both[0], weights, device), 2, device, warm=1)
        yield {"Inception features": summarize(features, count, "images")}
        whole = interleave(end_to_end_runs(both[:, :few], weights, device), 2, device, warm=0)
        yield {"fid,is end to end": summarize(whole)}


def generation(conditions: Conditions) -> Iterator[Record]:
    """Yields images per second of the generator, and the time of the spectra and checks of a log line."""
    config = configure(SIZES[conditions.size], ["discriminator.normalization=srn"])
    trainer = make_trainer(config, conditions.device)
    trainer.train_step()
    state, count = trainer.state, conditions.choose(5_000, 20)
    latents = torch.randn(count, config.generator.z_dim)

    def images(batch_size: int) -> Callable[[], Any]:
        return lambda: generate(
            state.generator, latents, None, batch_size=batch_size, device=conditions.device, quantizer="round"
        )

    variants = {f"batches of {size}": images(size) for size in (100, 500)}
    yield {"generator": summarize(interleave(variants, 3, conditions.device, warm=1), count, "images")}
    log = {"spectra of the discriminator": lambda: spectra(state.discriminator), "check_finite": trainer.check_finite}
    yield {"log line": summarize(interleave(log, 3, conditions.device, warm=1))}


def divergence(conditions: Conditions) -> Iterator[Record]:
    """Yields for each preset the time of a critic's update from a pool on the device, and of all its critics.

    The time of an update is the difference of two trainings by the difference of their steps, so that preparation and
    the final means are left out. A third one comes before them, because the first on a GPU also starts its libraries.
    The minutes are those of all updates of all critics; they are missing if the difference is not positive.
    """
    warm, few, most = conditions.choose((10, 200, 2200), (1, 1, 3))
    train = _critic(conditions)
    rows: Record = {}
    for name, preset in PRESETS.items():
        train(name, warm)
        first, updates = train(name, few)
        many = affordable_steps(few, first, most, SHARE * conditions.seconds)
        second, _ = train(name, many)
        update = (second - first) / (many - few)
        rows[name] = {
            "updates": updates,
            "ms per update": round(1000 * update, 4),
            "critics": preset.num_critics,
            "steps": preset.steps,
            "seconds": {few: first, many: second},
        }
        if update > 0:
            rows[name]["minutes"] = round(update * preset.steps * preset.num_critics / 60, 2)
        yield {"presets": rows}


def affordable_steps(few: int, first: float, most: int, seconds: float) -> int:
    """Returns the steps of the longer training: `most`, or as many as fit into `seconds`, but more than `few`.

    Args:
        first: seconds that `few` steps took, with the preparation.
    """
    return max(2 * few, min(most, int(few * seconds / first)))


def _critic(conditions: Conditions) -> Callable[[str, int], tuple[float, str]]:
    """Returns a function that trains a critic of a preset for some steps: its seconds, and the kind of updates."""
    random = torch.Generator().manual_seed(0)
    generated, test = (
        torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=random)
        for count in conditions.choose((50_000, 10_000), (300, 300))
    )
    pool, samples = generated.to(conditions.device), conditions.choose(10_000, 100)

    def train(name: str, steps: int) -> tuple[float, str]:
        begin = time.perf_counter()
        found = neural_divergence(
            pool, test, preset=name, steps=steps, samples=samples, num_critics=1, device=conditions.device
        )
        return time.perf_counter() - begin, found.updates

    return train
