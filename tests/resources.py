"""Trains in a new process and prints the resources used as JSON; see test_resources.py."""

import gc
import json
import re
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gan import build
from gan.config import load_config
from gan.data import Batches, ImageData
from gan.runs.checkpoint import save_checkpoint
from gan.runs.logger import Logger
from gan.runtime.memory import keep_freed_memory
from gan.train import main as gan_train
from gan.training.state import TrainState
from gan.training.trainer import Trainer

NUM_IMAGES = 50_000
"""Number of training images of CIFAR-10."""


def memory(what: str) -> int:
    """Memory of this process in bytes: VmRSS is the current, VmHWM the peak value."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def size_of_outputs(network: nn.Module, *inputs: Tensor) -> int:
    """Total bytes of the outputs of all layers in one forward pass."""
    sizes: list[int] = []
    handles = [
        module.register_forward_hook(lambda module, given, output: sizes.append(output.nbytes))
        for module in network.modules()
        if not list(module.children())
    ]
    with torch.no_grad():
        network(*inputs)
    for handle in handles:
        handle.remove()
    return sum(sizes)


def arithmetic(state: TrainState, data: ImageData, z_dim: int, fakes: int) -> dict[str, int]:
    """Bytes of the data set, of weights with gradients and Adam's two averages, and of one step's activations."""
    parameters = [*state.generator.parameters(), *state.discriminator.parameters()]
    latents = torch.randn(1, z_dim, device=state.totals.device)
    image = state.generator.eval()(latents)
    outputs = size_of_outputs(state.generator, latents) + size_of_outputs(state.discriminator, image)
    return {
        "data": data.images.nbytes + data.labels.nbytes,
        "weights": 4 * sum(parameter.nbytes for parameter in parameters),
        "activations": fakes * outputs,
    }


def train_cifar(folder: Path, device: str, channels: str, steps: str) -> dict[str, Any]:
    """Memory in bytes of some steps and a checkpoint of configs/cifar10_srn70.yaml at a width, on noise."""
    if device == "cpu":
        keep_freed_memory()
    overrides = [f"generator.channels={channels}", f"discriminator.channels={int(channels) // 2}"]
    config = load_config("cifar10_srn70", overrides)
    before = memory("VmRSS")
    pixels = torch.randint(256, (NUM_IMAGES, 3, 32, 32), dtype=torch.uint8)
    data = ImageData(pixels, torch.zeros(NUM_IMAGES, dtype=torch.int64), ("noise",), "noise", "train")
    state, train = build.build_state(config, device, 0), config.train
    fakes = train.batch_size * train.generator_batch_factor
    taken = {"before": before, **arithmetic(state, data, config.generator.z_dim, fakes)}
    batches = Batches(data, train.batch_size, seed=0, device=device)
    trainer = Trainer(
        state, batches, build.build_loss(config), train, z_dim=config.generator.z_dim, batched=device == "cuda"
    )
    for _ in range(int(steps)):
        trainer.train_step()
    trainer.take_scalars()
    path = save_checkpoint(folder, config.model_dump(), state.state_dict(), keep_last=1)
    taken["checkpoint"] = path.stat().st_size
    taken["peak"] = memory("VmHWM") if device == "cpu" else torch.cuda.max_memory_allocated()
    return taken


def open_files() -> list[str]:
    """Names of the open files of this process, without TensorBoard's, which its thread opens for every write."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor of the listing itself is closed by now
            found.append(str(descriptor.readlink()))
    return sorted(name for name in found if not Path(name).name.startswith("events."))


def train_long(folder: Path, root: str, steps: str) -> list[dict[str, Any]]:
    """Trains the smoke configuration with evaluations; returns the resources in use after each fifth of the steps."""
    counts: list[dict[str, Any]] = []
    write = Logger.line

    def line(self: Logger, step: int, *arguments: Any) -> None:
        write(self, step, *arguments)
        if step % (int(steps) // 5) == 0:
            gc.collect()
            counts.append(
                {
                    "memory": memory("VmRSS"),
                    "tensors": sum(isinstance(entry, Tensor) for entry in gc.get_objects()),
                    "files": open_files(),
                    "threads": threading.active_count(),
                }
            )

    Logger.line = line  # type: ignore[method-assign]
    settings = [f"data.root={root}", f"train.steps={steps}"]
    settings += [
        f"train.{name}_every={every}"
        for name, every in (("eval", 50), ("log", 50), ("sample", 100), ("checkpoint", 100))
    ]
    gan_train(
        ["--config", "smoke", "--device", "cpu", "--run", str(folder / "run"), *(f"--set={s}" for s in settings)],
        standalone_mode=False,
    )
    return counts


if __name__ == "__main__":
    measure = {"cifar": train_cifar, "long": train_long}[sys.argv[1]]
    print(json.dumps(measure(Path(sys.argv[2]), *sys.argv[3:])))
