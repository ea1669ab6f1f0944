"""Time of a classifier's update, compared with the usual loop on the same network and recipe."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.timing import Record, finish, interleave, shared_options, start, summarize
from evaluation.runtime.command import CheckedCommand
from gan import build_classifier
from gan.config.classifier import ClassifierConfig
from gan.config.loading import override_config
from gan.data import ImageData
from gan.training.classifier import ClassifierTrainer

NUM_IMAGES, CLASSES = 10_240, 10


@click.command("classify", cls=CheckedCommand)
@click.option("--name", default="resnet", help="Classifier: a key of gan.models.classifiers.CLASSIFIERS.")
@click.option(
    "--set", "sizes", multiple=True, default=["classifier.depth=20"], metavar="A.B=C", help="Settings of its size."
)
@click.option("--normalization", default="none,sn,srn", help="Names separated by commas.")
@click.option("--precision", default="fp32,bf16", help="Names separated by commas.")
@click.option("--peer/--no-peer", default=True, help="Compare with the usual loop.")
@shared_options(repeats=7)
def measure_classify(
    name: str,
    sizes: tuple[str, ...],
    normalization: str,
    precision: str,
    peer: bool,
    repeats: int,
    threads: int,
    device: str,
    json_path: Path | None,
) -> Record:
    """Time one update with 128 images: crops, flips, forward, backward, SGD.

    Ratios are to the usual loop: torchvision's transforms per image in a DataLoader without workers, float32 inputs
    normalized by means and deviations, contiguous layout, the loss read after each update.
    """
    record = start(f"one update of {name}, {', '.join(sizes)}, 128 images of 32x32", repeats, threads, device)
    settings = [f"classifier.name={name}", *sizes]
    variants: dict[str, Callable[[], object]] = {}
    if peer:
        variants["the usual loop fp32"] = _usual(override_config(ClassifierConfig(), settings, "benchmark"), device)
    for choice, bits in itertools.product(normalization.split(","), precision.split(",")):
        overrides = [*settings, f"classifier.normalization={choice}", f"train.precision={bits}"]
        variants[f"{choice} {bits}"] = _ours(override_config(ClassifierConfig(), overrides, "benchmark"), device)
    batch = ClassifierConfig().train.batch_size
    record["update"] = summarize(interleave(variants, repeats, device), batch, "images")
    return finish(record, json_path)


def random_images() -> ImageData:
    """Random pixels in ten classes; their content does not affect the time."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (NUM_IMAGES, 3, 32, 32), dtype=torch.uint8, generator=random)
    return ImageData(images, torch.arange(NUM_IMAGES) % CLASSES, tuple(map(str, range(CLASSES))), "random", "train")


def _ours(config: ClassifierConfig, device: str) -> Callable[[], None]:
    """Update as gan-train-classifier runs it."""
    state = build_classifier.build_classifier_state(config, device, CLASSES)
    batched = torch.device(device).type == "cuda"
    return ClassifierTrainer(state, random_images(), config.train, batched=batched).train_step


class Pictures(Dataset[tuple[Tensor, int]]):
    """Data set that returns one transformed image at a time, as torchvision's do."""

    def __init__(self, data: ImageData) -> None:
        self.pictures = [v2.functional.to_pil_image(image) for image in data.images]
        self.labels = data.labels.tolist()
        self.transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize((0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pictures[index]), self.labels[index]


def _usual(config: ClassifierConfig, device: str) -> Callable[[], None]:
    """Update by the usual loop on the same network without normalization."""
    network: nn.Module = build_classifier.architecture(config)(CLASSES).to(device).train()
    train = config.train
    optimizer = torch.optim.SGD(
        network.parameters(), lr=train.learning_rate, momentum=train.momentum, weight_decay=train.weight_decay
    )
    loader = DataLoader(Pictures(random_images()), batch_size=train.batch_size, shuffle=True)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    endless = batches()

    def update() -> None:
        images, labels = (part.to(device) for part in next(endless))
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # most loops print it

    return update
