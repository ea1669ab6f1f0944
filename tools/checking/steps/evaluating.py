"""Steps "inception", "generation" and "divergence": the parts of an evaluation."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from benchmarks.evaluation import measure_evaluate
from benchmarks.sizes import SIZES, configure, make_trainer
from benchmarks.timing import interleave, summarize

from checking.conditions import Conditions, Record
from evaluation import neural_divergence
from evaluation.settings.presets import PRESETS
from gan.normalization import spectra
from gan.sampling import generate


def inception(conditions: Conditions) -> Iterator[Record]:
    """Yields `benchmark.py evaluate`: 5,000 images through Inception, FID and IS end to end, against torch-fidelity."""
    images, dimensions = conditions.choose(("5000", "2048"), ("20", "64"))
    arguments = ["--images", images, "--dimensions", dimensions, "--no-peer", "--repeats", "2"]
    yield measure_evaluate.main([*arguments, "--device", conditions.device], standalone_mode=False)


def generation(conditions: Conditions) -> Iterator[Record]:
    """Yields images per second of the generator, and the time of the spectra and checks of a log line."""
    config = configure(SIZES[conditions.size], ["discriminator.normalization=srn"])
    trainer = make_trainer(config, conditions.device)
    trainer.train_step()
    state, count = trainer.state, conditions.choose(10_000, 20)
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
    the final means are left out. The minutes are those of all updates of all critics.
    """
    few, many, pool = conditions.choose((200, 2200, 50_000), (1, 3, 300))
    random = torch.Generator().manual_seed(0)
    test, generated = (
        torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=random)
        for count in (conditions.choose(10_000, 300), pool)
    )
    rows: Record = {}
    for name, preset in PRESETS.items():
        seconds = {}
        for steps in (few, many):
            begin = time.perf_counter()
            found = neural_divergence(
                generated.to(conditions.device),
                test,
                preset=name,
                steps=steps,
                samples=conditions.choose(10_000, 100),
                num_critics=1,
                device=conditions.device,
            )
            seconds[steps] = time.perf_counter() - begin
        update = max(0.0, seconds[many] - seconds[few]) / (many - few)
        rows[name] = {
            "updates": found.updates,
            "ms per update": round(1000 * update, 4),
            "critics": preset.num_critics,
            "steps": preset.steps,
            "minutes": round(update * preset.steps * preset.num_critics / 60, 2),
            "seconds": seconds,
        }
        yield {"presets": rows}
