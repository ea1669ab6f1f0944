"""Tests of image grids and training curves: positions, values, errors, no use of pyplot."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation import EvaluationError
from evaluation.reporting.plots import GAP, plot_curves, save_grid


def opened(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def test_a_grid_shows_images_row_by_row(tmp_path: Path):
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 4, 6) * 10
    save_grid(images, tmp_path / "grid.png", columns=3)
    pixels = opened(tmp_path / "grid.png")
    assert pixels.shape == (2 * (4 + GAP) + GAP, 3 * (6 + GAP) + GAP, 3)
    assert (pixels[GAP : GAP + 4, GAP : GAP + 6] == 0).all()
    assert (pixels[2 * GAP + 4 : 2 * GAP + 8, 2 * GAP + 6 : 2 * GAP + 12] == 40).all()
    assert (pixels[2 * GAP + 4 :, 3 * GAP + 12 :] == 255).all()


def test_labels_give_each_class_rows_of_its_own(tmp_path: Path):
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 4, 4) * 10
    save_grid(images, tmp_path / "grid.png", labels=torch.tensor([1, 0, 1, 1, 0]), columns=2)
    corners = opened(tmp_path / "grid.png")[GAP :: 4 + GAP, GAP :: 4 + GAP, 0]
    assert corners.tolist() == [[10, 40], [0, 20], [30, 255]]


def test_grids_refuse_floats(tmp_path: Path):
    with pytest.raises(EvaluationError, match="expected uint8"):
        save_grid(torch.zeros(2, 3, 4, 4), tmp_path / "grid.png")


def test_curves_are_drawn_from_what_is_there(tmp_path: Path):
    lines = [json.dumps({"step": step, "d_loss": 2 - step / 100, "real_logit": 0.1, "layer": "x"}) for step in range(9)]
    lines += ['{"step": 9, "d_loss": NaN}', '{"d_loss": 1}', "[1]", '{"step": 10, "d_l']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    plot_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    pixels = opened(tmp_path / "curves.png")
    assert pixels.shape == (400, 1200, 3)  # two panels
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10
    assert "matplotlib.pyplot" not in sys.modules
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["curves.png", "metrics.jsonl"]


def test_a_file_without_curves_is_refused(tmp_path: Path):
    with pytest.raises(EvaluationError, match="cannot be read"):
        plot_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "fid": 3}\n')
    with pytest.raises(EvaluationError, match="expected lines with step and one of d_loss"):
        plot_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
