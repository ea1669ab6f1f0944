"""The critic of Neural Divergence: network, initialization, losses, and resumable training."""

import copy
import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from evaluation.images.checks import to_critic
from evaluation.metrics.neural_divergence.graph import Batch, choose_update
from evaluation.settings.presets import Preset

GREY_LEVEL = 1 / 128  # one grey level in the output of `to_critic`
EPS = 1e-12  # added under the square root, whose derivative at 0 is infinite
TRUNCATED_STD = 0.87962566103423978  # standard deviation of a standard normal truncated at +-2


class Critic(nn.Module):
    """Maps images (N, C, H, W) to logits (N,).

    5x5 convolutions of stride 2 with TensorFlow's SAME padding, each followed by Swish, and a linear layer. For 32x32
    RGB images and channels (16, 32, 64) it has 66,337 parameters, for (64, 128, 256) 1,033,345.
    """

    def __init__(self, channels: tuple[int, ...], height: int, width: int, image_channels: int = 3) -> None:
        super().__init__()
        inputs = (image_channels, *channels[:-1])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 5, stride=2) for before, after in zip(inputs, channels, strict=True)
        )
        for _ in channels:
            height, width = -(-height // 2), -(-width // 2)
        self.linear = nn.Linear(channels[-1] * height * width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Computes the logits (N,) of images (N, C, H, W)."""
        hidden = images.contiguous(memory_format=torch.channels_last)  # channels last is 1.6 times as fast on a CPU
        for convolution in self.convolutions:
            hidden = functional.silu(convolution(functional.pad(hidden, same_padding(hidden))))
        return self.linear(hidden.flatten(1)).squeeze(1)


def same_padding(images: Tensor) -> tuple[int, int, int, int]:
    """Returns the padding left, right, top and bottom for kernel 5, stride 2; the odd pixel is right and below."""
    height, width = images.shape[2:]
    vertical, horizontal = (3 if size % 2 == 0 else 4 for size in (height, width))
    return horizontal // 2, horizontal - horizontal // 2, vertical // 2, vertical - vertical // 2


def normal_(weight: Tensor, generator: torch.Generator) -> None:
    """Draws weights from N(0, 0.02)."""
    weight.normal_(0, 0.02, generator=generator)


def he_(weight: Tensor, generator: torch.Generator) -> None:
    """Draws normal weights of variance 2 / fan-in (He et al. 2015), truncated at two standard deviations."""
    std = math.sqrt(2 / weight[0].numel()) / TRUNCATED_STD  # before truncation
    nn.init.trunc_normal_(weight, 0.0, std, -2 * std, 2 * std, generator=generator)


def xavier_(weight: Tensor, generator: torch.Generator) -> None:
    """Draws uniform weights of variance 2 / (fan-in + fan-out) (Glorot and Bengio 2010)."""
    nn.init.xavier_uniform_(weight, generator=generator)


INITIALIZERS: dict[str, Callable[[Tensor, torch.Generator], None]]
INITIALIZERS = {"normal_0.02": normal_, "he": he_, "xavier": xavier_}


@torch.no_grad()
def initialize_(critic: Critic, preset: Preset, generator: torch.Generator) -> None:
    """Draws all weights, from the first layer to the last, and sets biases to 0."""
    for layer in critic.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            name = preset.convolution_init if isinstance(layer, nn.Conv2d) else preset.linear_init
            INITIALIZERS[name](layer.weight, generator)
            assert layer.bias is not None
            layer.bias.zero_()


class CriticLoss(NamedTuple):
    """A critic's loss, as a function of real and fake logits, and its value for the uninformative critic f = 0."""

    of: Callable[[Tensor, Tensor], Tensor]
    chance: float


def logistic(real: Tensor, fake: Tensor) -> Tensor:
    """Computes E log(1 + e^f(fake)) + E log(1 + e^-f(real)); Sanyal et al. 2020 misprint -f(real) as -real."""
    return functional.softplus(fake).mean() + functional.softplus(-real).mean()


def wasserstein(real: Tensor, fake: Tensor) -> Tensor:
    """Computes E f(fake) - E f(real). Arjovsky et al. 2017."""
    return fake.mean() - real.mean()


LOSSES: dict[str, CriticLoss] = {
    "logistic": CriticLoss(logistic, 2 * math.log(2)),
    "wasserstein": CriticLoss(wasserstein, 0.0),
}


def gradient_penalties(critic: nn.Module, real: Tensor, fake: Tensor, shares: Tensor, *, create_graph: bool) -> Tensor:
    """Computes (|grad f(x)| - 1)^2 at x = share * real + (1 - share) * fake, (N,). Gulrajani et al. 2017, equation 3.

    Images are float32 (N, C, H, W), shares (N, 1, 1, 1) in [0, 1).
    """
    mixed = torch.lerp(fake, real, shares).requires_grad_()
    (gradients,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=create_graph)
    return ((gradients.flatten(1).square().sum(1) + EPS).sqrt() - 1).square()


class Noise:
    """Random numbers on the device, seeded by the name of a stream."""

    def __init__(self, stream: str, device: torch.device) -> None:
        self.device = device
        self.generator = torch.Generator(device).manual_seed(derived_seed(stream))

    def shares(self, count: int) -> Tensor:
        """Draws from U[0, 1), (count, 1, 1, 1)."""
        return torch.rand(count, 1, 1, 1, generator=self.generator, device=self.device)

    def uniforms(self, images: Tensor, preset: Preset) -> Tensor | None:
        """Draws from U[0, 1), of the images' shape; None if the preset does not dequantize."""
        if not preset.dequantize:
            return None
        return torch.rand(images.shape, generator=self.generator, device=self.device)

    def pixels(self, images: Tensor, preset: Preset) -> Tensor:
        """Converts uint8 images to the critic's input, dequantized if the preset requires it."""
        return to_pixels(images, self.uniforms(images, preset))


def to_pixels(images: Tensor, uniforms: Tensor | None) -> Tensor:
    """Converts uint8 images to float32 in [-1, 1]; `uniforms` add noise of up to one grey level."""
    scaled = to_critic(images.contiguous(memory_format=torch.channels_last))
    return scaled if uniforms is None else scaled + GREY_LEVEL * uniforms


def derived_seed(stream: str) -> int:
    """Returns a 32-bit seed for a stream."""
    return int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=4).digest(), "little")


class Training:
    """Training of one critic, without synchronizing with the device.

    `stream` names the random numbers: equal names give equal critics on the same machine. Every `loss_every`-th loss is
    recorded.
    """

    def __init__(
        self,
        preset: Preset,
        size: tuple[int, int],
        stream: str,
        device: torch.device,
        *,
        loss_every: int,
        image_channels: int = 3,
    ) -> None:
        self.preset, self.stream, self.device, self.loss_every = preset, stream, device, loss_every
        self.generator = torch.Generator("cpu").manual_seed(derived_seed(stream))
        with torch.device("cpu"):
            critic = Critic(preset.channels, *size, image_channels)
        initialize_(critic, preset, self.generator)
        self.critic = critic.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.critic).requires_grad_(False)
        self.optimizer = adam(self.critic, preset, device)
        self.update = choose_update(self.plain_update, device)
        self.step = 0
        self.losses: list[Tensor] = []

    @property
    def done(self) -> bool:
        """Whether all steps have been taken."""
        return self.step >= self.preset.steps

    def run(self, real: Tensor, fake: Tensor) -> None:
        """Takes one step per batch of `real` and `fake`, uint8 on the device, up to the last step."""
        noise = Noise(f"{self.stream}/noise/{self.step}", self.device)
        left = self.preset.steps - self.step
        batches = list(zip(*(images.split(self.preset.batch_size) for images in (real, fake)), strict=True))
        for real_batch, fake_batch in batches[:left]:
            self._set_learning_rate()
            loss = self.update(self._drawn(real_batch, fake_batch, noise))
            if self.step % self.loss_every == 0:
                self.losses.append(loss.clone())  # a CUDA graph overwrites its loss
            self.step += 1

    def _drawn(self, real: Tensor, fake: Tensor, noise: Noise) -> Batch:
        images = torch.cat([real, fake])
        uniforms = noise.uniforms(images, self.preset)
        return Batch(images, uniforms, noise.shares(len(real)) if self.preset.gp_lambda else None)

    def plain_update(self, batch: Batch) -> Tensor:
        """Updates the critic by Adam, and its average; returns the loss. Draws no random numbers, for CUDA graphs."""
        loss = self._loss(batch)
        self.optimizer.zero_grad()
        loss.backward(inputs=list(self.critic.parameters()))
        self.optimizer.step()
        torch._foreach_lerp_(
            list(self.average.parameters()),
            [parameter.detach() for parameter in self.critic.parameters()],
            1 - self.preset.average_decay,
        )
        return loss.detach()

    def _loss(self, batch: Batch) -> Tensor:
        pixels = to_pixels(batch.images, batch.uniforms)
        real_logits, fake_logits = self.critic(pixels).chunk(2)
        loss = LOSSES[self.preset.loss].of(real_logits, fake_logits)
        if batch.shares is None:
            return loss
        real, fake = pixels.chunk(2)
        penalties = gradient_penalties(self.critic, real, fake, batch.shares, create_graph=True)
        return loss + self.preset.gp_lambda * penalties.mean()

    def _set_learning_rate(self) -> None:
        first, last = self.preset.learning_rate, self.preset.final_learning_rate
        rate = first + (last - first) * self.step / self.preset.steps
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def state(self) -> dict[str, Any]:
        """Returns the state from which `restore` continues bit for bit; plain containers and tensors."""
        return {
            "critic": self.critic.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],  # settings follow from the preset and the device
            "generator": self.generator.get_state(),
            "step": self.step,
            "losses": self.loss_curve(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Loads the result of `state`; only before the first update, because a CUDA graph keeps the old tensors."""
        assert self.step == 0, self.step
        self.critic.load_state_dict(state["critic"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state["optimizer"]})
        self.generator.set_state(state["generator"])
        self.step = state["step"]
        self.losses = list(state["losses"].to(self.device))

    def loss_curve(self) -> Tensor:
        """Returns the recorded training losses, float32 (points,), on the CPU."""
        return torch.stack(self.losses).cpu() if self.losses else torch.empty(0)


def adam(critic: Critic, preset: Preset, device: torch.device) -> torch.optim.Adam:
    """Returns Adam; on CUDA devices it is fused, with the learning rate in a tensor that a CUDA graph can read.

    On a CPU the fused update rounds differently and saves little time next to the convolutions.
    """
    if device.type != "cuda":
        return torch.optim.Adam(critic.parameters(), lr=preset.learning_rate, betas=preset.betas)
    rate = torch.tensor(preset.learning_rate, dtype=torch.float32, device=device)
    return torch.optim.Adam(critic.parameters(), lr=rate, betas=preset.betas, fused=True, capturable=True)
