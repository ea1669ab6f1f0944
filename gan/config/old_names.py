"""Maps old configuration names, from when every combination had its own file, to their present forms."""

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
_CHANGES: dict[str, list[str]] = {
    "cifar10": [],
    "cifar10_cond": [],
    "cifar10_sndcgan": [],
    "cifar10_jpeg": ["jpeg"],
    "cifar10_jpeg_cond": ["jpeg"],
    "cifar10_small": ["jpeg", "small"],
    "cifar10_small_cond": ["jpeg", "small", "eval.num_intra=500"],
    "cifar100": [],
    "cifar100_cond": [],
    "cifar100_small": ["small"],
    "cifar100_small_cond": ["small", "eval.num_intra=200"],
    "celeba": [],
    "celeba_small": ["small64"],
}
"""Variants, and settings as section.name=value, that replace each family of old names."""

OLD_ADAM = "train.adam_beta2=0.9"
"""Adam of the old configurations. Those named after the SRN paper's rows now have the paper's, 0.999."""

REMOVED = {"cifar10_jpeg_small": "--config cifar10_compact --with jpeg"}
"""Recipes that no longer exist, and the options of their successors, which have other settings."""


def new_form(name: str, configs: Container[str]) -> tuple[str, list[str]] | None:
    """Returns the configuration that replaces an old name and the changes to it, None for any other name.

    Changes are names of variants, and settings as section.name=value. Together they are the old settings, with Adam's
    beta2 of then.

    Args:
        configs: names of the present configurations.
    """
    if old := _CLASSIFIER.fullmatch(name):
        config = f"classifier_cifar10_small_{old['network']}"
        changes = []
        if old["data"] != "cifar10_small" or config not in configs:
            config = f"classifier_cifar100_{old['network']}"
            changes = {"cifar10_small": ["small"], "cifar10": ["cifar10"], "cifar100": []}[old["data"]]
        return config, [*changes, *filter(None, [old["normalization"]])]
    old = _GAN.fullmatch(name)
    family = f"{old['data']}{old['variant']}{old['network']}" if old else ""
    if not old or family not in _CHANGES:
        return None
    changes = _CHANGES[family]
    normalization = old["normalization"]
    network = "_sndcgan_plain" if old["network"] == "_sndcgan" else old["network"]  # the generator of then
    config = f"{old['data']}{network}_{normalization}"
    if f"{config}_miyato" in configs:
        return f"{config}_miyato", changes
    adam = [] if network == "_sndcgan_plain" else [OLD_ADAM]
    if config in configs:
        return config, [*changes, *adam]
    change = "discriminator.normalization=none" if normalization == "none" else normalization
    return f"{old['data']}{network}_sn", [*changes, change, *adam]
