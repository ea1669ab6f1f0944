"""Single updates of a trainer's networks."""

from torch import Tensor

from gan.training.trainer import Trainer


def generator_step(trainer: Trainer, index: int) -> Tensor:
    """Runs update `index` of the generator; returns its loss."""
    iteration = trainer.iteration
    return iteration.update_generator(iteration.draw_generator(index))


def discriminator_step(trainer: Trainer, index: int) -> Tensor:
    """Runs update `index` of the discriminator; returns (loss, mean real logit, mean fake logit)."""
    iteration = trainer.iteration
    inputs = iteration.draw_discriminator(index)
    return iteration.update_discriminator(inputs, *iteration.generate([inputs.fakes]))
