"""Tests that help and errors that need no registry load neither torch, numpy nor matplotlib."""

import subprocess
import sys

import pytest

MODULES = (
    *("gan.train", "gan.train_classifier", "gan.evaluate", "gan.evaluate_classifier", "gan.sample"),
    "evaluation.__main__",
)
HEAVY = ("torch", "torchvision", "numpy", "matplotlib", "scipy")
LOADED = """
import atexit, importlib, sys
atexit.register(lambda: print("loaded:", *(name for name in {heavy} if name in sys.modules)))
importlib.import_module("{module}").main({arguments}, prog_name="command")
"""
SMOKE = ("--config", "smoke")
GIVEN = {
    "help": ("train", ("--help",), 0, "Examples"),
    "printed": ("train", (*SMOKE, "--print-config"), 0, "image_size: 32"),
    "printed with a name that is not looked up": (
        *("train", (*SMOKE, "--set", "data.name=shpes", "--print-config"), 0, "name: shpes"),
    ),
    "a classifier's, printed": ("train_classifier", ("--config", "classifier_smoke", "--print-config"), 0, "epochs:"),
    "no configuration": ("train", (), 2, "--config is missing"),
    "unknown configuration": ("train_classifier", ("--config", "classifier_smok"), 2, "did you mean"),
    "unknown setting": ("train", (*SMOKE, "--set", "train.step=3"), 2, "unknown setting"),
    "wrong type": ("train", (*SMOKE, "--set", "train.steps=x"), 2, "expected a valid integer"),
    "contradiction": ("train", (*SMOKE, "--skip-damaged"), 2, "needs --resume"),
    "several, printed": ("train", (*SMOKE, "--seeds", "0,1", "--print-config"), 2, "needs a single --config"),
    "wrong resources": ("train", (*SMOKE, "--slurm", "partition"), 2, "expected name=value"),
    "two checkpoints": ("evaluate", ("--run", "a", "--checkpoint", "b"), 2, "give only one of them"),
    "no protocol": ("evaluate", ("--generated", "a"), 2, "needs --config"),
    "no such run": ("evaluate", ("--run", "nowhere"), 2, "nowhere: no such checkpoint or run folder"),
    "no such checkpoint": ("sample", ("--checkpoint", "no.pt"), 2, "no.pt: no such checkpoint or run folder"),
    "no such classifier": ("evaluate_classifier", ("--run", "nowhere"), 2, "nowhere: no such checkpoint"),
    "best of a file": ("sample", ("--best", "--checkpoint", "b"), 2, "--best: cannot be combined with --checkpoint"),
}


def loaded(module: str, arguments: tuple[str, ...]) -> tuple[int, str, list[str]]:
    """Exit status and output of a command, and the modules of HEAVY that it has loaded at its end."""
    code = LOADED.format(heavy=HEAVY, module=module, arguments=list(arguments))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    output, _, names = ended.stdout.rpartition("loaded:")
    return ended.returncode, output + ended.stderr, names.split()


@pytest.mark.parametrize("module", MODULES)
def test_help_loads_nothing_heavy(module: str) -> None:
    assert loaded(module, ("--help",))[::2] == (0, [])


@pytest.mark.parametrize("case", GIVEN)
def test_answers_that_need_no_registry_load_nothing_heavy(case: str) -> None:
    module, arguments, status, part = GIVEN[case]
    ended, output, names = loaded(f"gan.{module}", arguments)
    assert (ended, names) == (status, []), output
    assert part in output
