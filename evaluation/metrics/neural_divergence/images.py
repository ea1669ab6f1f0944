"""Images for training and evaluating the critics of Neural Divergence."""

from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.images.checks import Sampler, check_images, check_same_size
from evaluation.images.streams import upload
from evaluation.metrics.neural_divergence.critic import derived_seed
from evaluation.runtime.progress import progress
from evaluation.settings.presets import Preset

CHUNK = 2048  # images generated per call of a sampler; affects values


def steps_per_chunk(preset: Preset) -> int:
    """Returns the number of critic updates whose images are generated at once."""
    return max(1, CHUNK // preset.batch_size)


@dataclass(frozen=True)
class CriticImages:
    """Images that all critics of a run share."""

    real: Tensor
    unseen: Tensor  # real images that critics are not trained on
    pool: Tensor | None  # generated images that critics are trained on; None: new images from the sampler
    sampler: Sampler | None
    device: torch.device

    def batches(self, preset: Preset, stream: str, chunk: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns real and generated images for a chunk of steps, on the device, by one transfer or one sampler call.

        Rows of the real images and of a pool are drawn with replacement; in each step the real ones are drawn first.
        """
        steps = steps_per_chunk(preset)
        tables = [self.real] if self.pool is None else [self.real, self.pool]
        draws = [[_rows(table, preset.batch_size, generator) for table in tables] for _ in range(steps)]
        rows = [torch.cat(of_table) for of_table in zip(*draws, strict=True)]
        real = _taken(self.real, rows[0])
        if self.pool is None:
            return real, self._fresh(steps * preset.batch_size, f"{stream}/training/{chunk}")
        return real, upload(_taken(self.pool, rows[1]), self.device)

    def final(self, stream: str, start: int, count: int) -> Tensor:
        """Returns generated images for the final means, on the device: new ones, or pool images from `start` on."""
        if self.sampler is not None:
            return self._fresh(count, stream)
        assert self.pool is not None
        return upload(self.pool[start : start + count], self.device)

    def partners(self, stream: str, count: int) -> Tensor:
        """Draws real images with replacement, on the device."""
        generator = torch.Generator("cpu").manual_seed(derived_seed(f"{stream}/partners"))
        return _taken(self.real, _rows(self.real, count, generator))

    def _fresh(self, count: int, stream: str) -> Tensor:
        assert self.sampler is not None
        return upload(_sampled(self.sampler, count, stream, self.real), self.device)


def critic_images(
    generated: Tensor | Sampler, test: Tensor, holdout: float, pool: int | None, seed: int, device: torch.device
) -> CriticImages:
    """Checks and splits the images; generates a pool of `pool` images if a number is given.

    Real images for training are moved to the device.

    Raises:
        EvaluationError: invalid images; `holdout` or `pool` out of range.
    """
    check_images(test, "test")
    if isinstance(generated, Tensor):
        check_images(generated, "generated")
        check_same_size(generated, "generated", test, "test")
    if pool is not None and (isinstance(generated, Tensor) or pool < 1):
        got = f"{pool} with images instead of a sampler" if isinstance(generated, Tensor) else str(pool)
        raise EvaluationError(f"nd pool: got {got}, expected at least 1 and a sampler that generates the images")
    real, unseen = _split(test, holdout, seed)
    real = real.to(device)
    if isinstance(generated, Tensor):
        return CriticImages(real, unseen, generated, None, device)
    made = None if pool is None else _made_pool(generated, pool, f"{seed}/pool", real)
    return CriticImages(real, unseen, made, generated, device)


def count_unseen(num_test: int, holdout: float) -> int:
    """Returns the number of held-out images; raises EvaluationError if one of the parts would be empty."""
    num_unseen = round(holdout * num_test) if 0 <= holdout < 1 else num_test
    if num_unseen == num_test or (holdout > 0 and num_unseen == 0):
        raise EvaluationError(
            f"nd.holdout: got {holdout} of {num_test} test images, expected 0, or a fraction below 1 "
            "that leaves at least one image in both parts"
        )
    return num_unseen


def _split(test: Tensor, holdout: float, seed: int) -> tuple[Tensor, Tensor]:
    """Splits the test images into those that critics are trained on and those held out; keeps their order."""
    num_unseen = count_unseen(len(test), holdout)
    if num_unseen == 0:
        return test, test[:0]
    generator = torch.Generator("cpu").manual_seed(derived_seed(f"{seed}/holdout"))
    order = torch.randperm(len(test), generator=generator, device="cpu").to(test.device)
    return test[order[num_unseen:].sort().values], test[order[:num_unseen].sort().values]


def _made_pool(sampler: Sampler, size: int, stream: str, test: Tensor) -> Tensor:
    parts = []
    with progress(size, "Neural Divergence, pool", "images") as counter:
        for start in range(0, size, CHUNK):
            parts.append(_sampled(sampler, min(CHUNK, size - start), f"{stream}/{start}", test))
            counter.advance(len(parts[-1]))
    return torch.cat(parts)


def _sampled(sampler: Sampler, count: int, stream: str, test: Tensor) -> Tensor:
    with torch.no_grad():
        images, _ = sampler(count, derived_seed(stream))
    check_images(images, "sampler")
    check_same_size(images, "sampler", test, "test")
    if len(images) != count:
        raise EvaluationError(f"sampler: got {len(images)} images, expected {count}")
    return images


def _rows(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(len(images), (count,), generator=generator, device="cpu")


def _taken(images: Tensor, rows: Tensor) -> Tensor:
    return images[upload(rows, images.device)]
