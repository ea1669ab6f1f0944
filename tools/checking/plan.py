"""Steps of tools/gpu_check.py by name, with their time limits."""

from collections.abc import Sequence
from typing import NamedTuple


class PlannedStep(NamedTuple):
    """A step of a group; `function` is "module:function" in `checking.steps`; `seconds` is its time limit."""

    group: str
    seconds: float
    function: str
    shows: str


STEPS = {
    "machine": PlannedStep("validate", 20, "machine:machine", "versions, matrix rates and copy rate"),
    "tests": PlannedStep("validate", 70, "suite:suite", "pytest -m gpu in parallel"),
    "capture": PlannedStep("validate", 60, "capture:capture", "CUDA graphs against the plain step, deterministic"),
    "fast-and-plain": PlannedStep("validate", 50, "runs:fast_and_plain", "300 steps of gan-train, fast then plain"),
    "iteration": PlannedStep("measure", 95, "iterations:iteration", "an iteration against torch-mimicry's"),
    "profile": PlannedStep("measure", 25, "profiling:profile_replays", "kernels of 5 replays by time, and their trace"),
    "convolutions": PlannedStep("measure", 50, "convolutions:convolutions", "time of every distinct convolution"),
    "variants": PlannedStep("measure", 70, "iterations:variants", "the graph with other settings, and compiled"),
    "inception": PlannedStep("measure", 50, "evaluating:inception", "features and FID against torch-fidelity"),
    "generation": PlannedStep("measure", 15, "evaluating:generation", "images per second, spectra of a log line"),
    "divergence": PlannedStep("measure", 25, "evaluating:divergence", "Neural Divergence from a pool"),
    "training": PlannedStep("train", 600, "runs:training", "SRN-70 at full width on --images, in the time left"),
}
GROUPS = {"validate": 200, "measure": 330, "train": 600}
"""Groups of steps, with the seconds that each takes at most."""


def chosen_steps(names: Sequence[str], *, images: bool) -> list[str]:
    """Returns the steps with these names or of these groups, in the order of `STEPS`.

    Args:
        names: without any, all steps; those of the group "train" only if there are images.
        images: whether there are images to train on.

    Raises:
        ValueError: an unknown name, or the group "train" without images.
    """
    for name in names:
        if name not in STEPS and name not in GROUPS:
            valid = ", ".join([*STEPS, *GROUPS])
            raise ValueError(f"--only: got {name!r}, expected names of steps or groups out of: {valid}")
    if not names:
        return [name for name, step in STEPS.items() if images or step.group != "train"]
    chosen = [name for name, step in STEPS.items() if name in names or step.group in names]
    if not images and any(STEPS[name].group == "train" for name in chosen):
        raise ValueError("--only: got training without --images: name its training images, a folder or an archive")
    return chosen
