"""New forms of the names that configurations had when every combination was a file of its own."""

import re
from collections.abc import Container

_GAN = re.compile(
    r"(?P<data>cifar100?|celeba)(?P<variant>_jpeg|_small|)(?P<network>_cond|_sndcgan|)"
    r"_(?P<normalization>none|sn|srn[13579]0|ssn|bsn|bssn|wgan_gp|ortho)"
)
_CLASSIFIER = re.compile(
    r"classifier_(?P<data>cifar10_small|cifar100?)_(?P<network>resnet|wide_resnet|densenet|vgg|alexnet)"
    r"(?:_(?P<normalization>sn|srn[35]0))?"
)
_VARIANTS = {
    "cifar10": [],
    "cifar10_cond": [],
    "cifar10_sndcgan": [],
    "cifar10_jpeg": ["jpeg"],
    "cifar10_jpeg_cond": ["jpeg"],
    "cifar10_small": ["jpeg", "small"],
    "cifar10_small_cond": ["jpeg", "small_cond"],
    "cifar100": [],
    "cifar100_cond": [],
    "cifar100_small": ["small"],
    "cifar100_small_cond": ["small_cond100"],
    "celeba": [],
    "celeba_small": ["small64"],
}


def new_form(name: str, configs: Container[str]) -> tuple[str, list[str]] | None:
    """Returns the configuration and the variants that an old name stands for, None for any other name.

    Args:
        configs: names of the configurations that there are now.
    """
    if old := _CLASSIFIER.fullmatch(name):
        data = "cifar10_small" if old["data"] == "cifar10_small" else "cifar100"
        variants = ["cifar10"] if old["data"] == "cifar10" else []
        variants += [old["normalization"]] if old["normalization"] else []
        return f"classifier_{data}_{old['network']}", variants
    old = _GAN.fullmatch(name)
    family = f"{old['data']}{old['variant']}{old['network']}" if old else ""
    if not old or family not in _VARIANTS:
        return None
    config = f"{old['data']}{old['network']}_{old['normalization']}"
    if config in configs:
        return config, _VARIANTS[family]
    return f"{old['data']}{old['network']}_sn", [*_VARIANTS[family], old["normalization"]]
