"""Fixtures: drawn images of two classes, a trained classifier, and random Inception weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from headless import Browser, find_browser
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from evaluation import Context, Sources, build_extractor


def draw_images(count: int, seed: int, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy uint8 images of a bright square on dark ground, class 0, or a dark square on bright ground, class 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.randint(0, 60, (count, 3, side, side), generator=generator)
    corners = torch.randint(0, side // 2, (count, 2), generator=generator).tolist()
    for index, (top, left) in enumerate(corners):
        images[index, :, top : top + side // 2, left : left + side // 2] += 150
    images[labels == 1] = 255 - images[labels == 1]
    return images.to(torch.uint8), labels


@pytest.fixture(scope="session")
def drawn():
    return draw_images


@pytest.fixture(scope="session")
def drawn_context():
    """Makes a context; generated=(50, 1) means 50 drawn images of seed 1, with labels unless `labelled` is false."""

    def make(*, labelled: bool = True, **content: Any) -> Context:
        for role in ("generated", "reference", "test"):
            if role in content:
                count, seed = content[role]
                content[role], labels = draw_images(count, seed)
                content.setdefault(f"{role}_labels", labels if labelled else None)
        return Context(**content)

    return make


@pytest.fixture(scope="session")
def classifier_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def classifier(classifier_cache: Path):
    images, labels = draw_images(200, seed=1)
    test_images, test_labels = draw_images(100, seed=2)
    return build_extractor(
        "classifier",
        Sources(
            images=images,
            labels=labels,
            test_images=test_images,
            test_labels=test_labels,
            cache=classifier_cache,
            classifier_steps=30,
        ),
    )


@pytest.fixture(scope="session")
def pixels():
    return build_extractor("pixels", Sources())


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of He-initialized weights for torch-fidelity's network, with which features neither vanish nor explode."""
    file = tmp_path_factory.mktemp("weights") / "random-inception.pth"
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    generator = torch.Generator().manual_seed(7)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.normal_(0, (2 / module.weight[0].numel()) ** 0.5, generator=generator)
    network.fc.weight.data.normal_(0, 0.2, generator=generator)
    torch.save(network.state_dict(), file)
    return file


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path = find_browser()
    if path is None:
        pytest.skip("no chromium and no google-chrome on this machine")
    opened = Browser(path, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()
