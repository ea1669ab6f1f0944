"""Feature extractor for data unlike ImageNet: a small classifier trained on the training split of the data set."""

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from evaluation.errors import EvaluationError
from evaluation.extractors.interface import NetworkExtractor, Sources
from evaluation.images.cache import default_folder
from evaluation.images.checks import check_images, check_labels, fingerprint, three_channels
from evaluation.images.streams import upload
from evaluation.runtime.files import replacing
from evaluation.runtime.isolation import isolated, one_thread
from evaluation.runtime.progress import progress
from evaluation.runtime.terminal import say
from evaluation.runtime.weights_file import weights_sha256

ARCHITECTURE = "conv4-v1"  # increment the version when the network or its training changes
BATCH_SIZE = 128
LEARNING_RATE = 3e-3
FEATURES = 128


class SmallClassifier(nn.Module):
    """Four 3x3 convolutions of stride 2 with batch norm and ReLU, mean pooling: features (N, 128), logits (N, K)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, FEATURES)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(FEATURES, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Computes features and logits of uint8 images (N, 3, H, W)."""
        features = self.trunk(images.float() / 128 - 1).mean(dim=(2, 3))
        return features, self.head(features)


def trained_classifier(sources: Sources) -> NetworkExtractor:
    """Trains the classifier, or reads it from the cache if images, labels and settings are the same.

    Raises:
        EvaluationError: no training images, no labels, or fewer than two classes.
    """
    images, labels = _training_split(sources)
    content, steps = fingerprint(images, labels), sources.classifier_steps
    key = hashlib.sha256(f"{ARCHITECTURE}/{content}/{sources.seed}/{steps}/one thread".encode()).hexdigest()
    folder = sources.cache or default_folder()
    file = None if folder is None else folder / f"classifier-{key[:32]}.pt"
    with isolated(), torch.inference_mode(False), torch.enable_grad():
        network = None if file is None else _read(file, key, num_classes=int(labels.max()) + 1)
        if network is None:
            network = train_classifier(images, labels, seed=sources.seed, steps=steps, device=sources.device)
            if file is not None:
                _write(file, key, network)
        sha256 = weights_sha256(network.state_dict())
        network = network.to(sources.device).eval().requires_grad_(False)
        extractor = NetworkExtractor(network, "classifier", ARCHITECTURE, sha256)
        extractor.record = {"trained_on": content, "training_images": len(images), "seed": sources.seed, "steps": steps}
        if sources.test_images is not None and sources.test_labels is not None:
            extractor.record["test_accuracy"] = accuracy(
                network, sources.test_images, sources.test_labels, sources.device
            )
    return extractor


def _training_split(sources: Sources) -> tuple[Tensor, Tensor]:
    if sources.images is None or sources.labels is None:
        missing = "training images" if sources.images is None else "labels of the training images"
        raise EvaluationError(
            f"extractor classifier: got no {missing}, expected a labelled training split; "
            "give --reference with one sub-folder per class or an .npz file with labels, or choose another extractor"
        )
    check_images(sources.images, "training")
    check_labels(sources.labels, len(sources.images), "training")
    classes = len(sources.labels.unique())
    if classes < 2:
        raise EvaluationError(
            f"extractor classifier: got {classes} class in the training split, expected at least 2; sort the images "
            "into one sub-folder per class, or choose another extractor, such as pixels"
        )
    return sources.images, sources.labels


def train_classifier(
    images: Tensor, labels: Tensor, *, seed: int, steps: int, device: torch.device | str
) -> SmallClassifier:
    """Trains on cross-entropy with Adam and a one-cycle learning rate, using a local random generator and one thread.

    The number of threads does not affect the weights, so the same images give the same extractor and the same scores.
    """
    generator = torch.Generator("cpu")
    generator.manual_seed(seed)
    with torch.device("cpu"):
        network = SmallClassifier(int(labels.max()) + 1)
    _initialise(network, generator)
    network.to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    with one_thread(), progress(steps, "training the classifier", "steps") as counter:
        for rows in _batches(len(images), steps, generator):
            _, logits = network(three_channels(upload(images[rows], device)))
            optimizer.zero_grad()
            functional.cross_entropy(logits, upload(labels[rows], device)).backward()
            optimizer.step()
            schedule.step()
            counter.advance(1)
    return network.eval().cpu()


def _batches(count: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yields rows of `steps` batches from successive permutations, dropping the short batch at the end of each."""
    size = min(BATCH_SIZE, count)
    rows = torch.empty(0, dtype=torch.int64, device="cpu")
    for _ in range(steps):
        if len(rows) < size:
            rows = torch.randperm(count, generator=generator, device="cpu")
        yield rows[:size]
        rows = rows[size:]


def _initialise(network: SmallClassifier, generator: torch.Generator) -> None:
    """Initialises convolutions by He et al. 2015, the head with standard deviation 1 / sqrt(fan-in)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            scale = (2 / fan_in) ** 0.5 if isinstance(module, nn.Conv2d) else fan_in**-0.5
            module.weight.data.normal_(0, scale, generator=generator)
    network.head.bias.data.zero_()


def accuracy(network: SmallClassifier, images: Tensor, labels: Tensor, device: torch.device | str) -> float:
    """Computes the accuracy on test images."""
    check_images(images, "test")
    check_labels(labels, len(images), "test")
    with torch.inference_mode():
        answers = torch.cat(
            [network(three_channels(upload(batch, device)))[1].argmax(dim=1) for batch in images.split(512)]
        )
    return int((answers.cpu() == labels.cpu()).sum()) / len(images)


def _read(file: Path, key: str, num_classes: int) -> SmallClassifier | None:
    """Reads the network from a cache file; returns None if the file is missing, damaged or has another key."""
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True)
        if stored["key"] != key or stored["sha256"] != weights_sha256(stored["state"]):
            return None
        with torch.device("cpu"):
            network = SmallClassifier(num_classes)
        network.load_state_dict(stored["state"])
    except Exception:  # a damaged pickle can raise almost any error, such as IndexError
        return None
    return network


def _write(file: Path, key: str, network: SmallClassifier) -> None:
    """Writes the cache file; a failure is reported on stderr only."""
    state = network.state_dict()
    try:
        with replacing(file) as beside:
            torch.save({"key": key, "sha256": weights_sha256(state), "state": state}, beside)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        say(
            f"extractor classifier: cannot write its cache file {file} ({error}); the next run trains it again; "
            "set XDG_CACHE_HOME to a writable folder with free space"
        )
