"""Tests of CLIP and DINOv2 through torch-fidelity, with tiny networks of the published forms."""

import os
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_fidelity.feature_extractor_clip import CLIPVisual

from evaluation import EvaluationError, Sources, build_extractor, build_extractors
from evaluation.extractors.fidelity import clip_location

HUBCONF = """
import torch

def dinov2_vitl14(**settings):
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 5))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.nn.init.normal_(network[2].weight)
    return network
"""


class _Clip(nn.Module):
    """Published form of a CLIP archive: an image network and a text projection."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = CLIPVisual(16, 16, 2, 64, 8).visual
        self.text_projection = nn.Parameter(torch.zeros(3, 16))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


@pytest.fixture
def clip_file(tmp_path: Path) -> Path:
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(0)
        archive = torch.jit.trace(_Clip().eval(), torch.zeros(1, 3, 16, 16))
        torch.jit.save(archive, tmp_path / "clip.pt")
    return tmp_path / "clip.pt"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hub folder with the repository, as prepared for a machine without network access."""
    repository = tmp_path / "torch" / "hub" / "facebookresearch_dinov2_main"
    repository.mkdir(parents=True)
    (repository / "hubconf.py").write_text(HUBCONF)
    (repository.parent / "trusted_list").write_text("facebookresearch_dinov2\n")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def test_clip(clip_file: Path, drawn):
    before = torch.get_rng_state()
    extractor = build_extractor("clip", Sources(clip_weights=clip_file))
    features, logits = extractor(drawn(3, seed=1)[0])
    assert features.shape == (3, 16)
    assert features.dtype == torch.float32
    assert logits is None
    assert not extractor.has_logits
    assert extractor.name == f"clip-{extractor.fingerprint[:8]}"
    assert extractor.protocol["resize"] == "bilinear-tensorflow1-16"
    assert torch.equal(before, torch.get_rng_state())


def test_clip_weights_are_found_by_variable_and_in_the_hub_folder(
    clip_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CLIP_WEIGHTS", str(clip_file))
    named = build_extractor("clip", Sources())
    monkeypatch.delenv("CLIP_WEIGHTS")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(EvaluationError, match=r"CLIP weights: no file .*; download https://"):
        build_extractor("clip", Sources())
    clip_location().parent.mkdir(parents=True)
    clip_location().write_bytes(clip_file.read_bytes())
    assert build_extractor("clip", Sources()).name == named.name


def test_a_file_that_is_no_clip_model_is_refused(tmp_path: Path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(EvaluationError, match=r"extractor clip: .* is not a CLIP model"):
        build_extractor("clip", Sources(clip_weights=tmp_path / "other.pt"))


def test_dinov2(hub: None, drawn):
    environment, before = dict(os.environ), torch.get_rng_state()
    extractor = build_extractor("dinov2", Sources())
    features, logits = extractor(drawn(3, seed=1)[0])
    assert features.shape == (3, 5)
    assert logits is None
    assert extractor.name == f"dinov2-{extractor.fingerprint[:8]}"
    assert dict(os.environ) == environment
    assert torch.equal(before, torch.get_rng_state())


def test_dinov2_that_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr("torch.hub.load", _offline)
    with pytest.raises(EvaluationError, match="extractor dinov2: torch hub has no facebookresearch/dinov2"):
        build_extractor("dinov2", Sources())


def _offline(*arguments: object, **settings: object) -> None:
    raise OSError("no network")


def test_several_extractors_by_name(hub: None):
    names = [extractor.name.split("-")[0] for extractor in build_extractors("pixels, dinov2,pixels", Sources())]
    assert names == ["pixels", "dinov2"]
    with pytest.raises(EvaluationError, match="extractor: got ' ,'"):
        build_extractors(" ,", Sources())
