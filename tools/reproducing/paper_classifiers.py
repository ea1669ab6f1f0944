"""What Sanyal et al. 2020 print of their classifiers: sections 3, 5.1 and 5.2, appendix D.

Of most bars no number is printed. Orders that a text claims are `Claim`s, which our runs confirm or not.
"""

from collections.abc import Iterable, Mapping

from reproducing.content import Bars, Claim, Classifier, Column, Figure, Line, Table
from reproducing.measured import value_of

COLUMNS = {
    "training accuracy, %": Column("", r"training/accuracy", "lower"),  # of random labels only
    "training error, %": Column("", r"training/error", "higher"),  # likewise
    "test accuracy, %": Column("", r"test/accuracy", "higher"),
    "test error, %": Column("", r"test/error", "lower"),
    "generalization error, %": Column("", r"generalization/error", "lower"),
    "log Jac-Norm": Column("complexity", r"complexity/jac_norm/p90", "lower"),
    "log Spec-L1": Column("complexity", r"complexity/spec_l1/p90", "lower"),
    "log Spec-Fro": Column("complexity", r"complexity/spec_fro/p90", "lower"),
    "noise sensitivity, maximum": Column("noise", r"noise/max", "lower"),
    "noise sensitivity, mean": Column("noise", r"noise/mean", "lower"),
}

VANILLA, SN, SRN50, SRN30 = "Vanilla", "SN", "SRN-50", "SRN-30"
METHODS = {VANILLA: "", SN: "_sn", SRN50: "_srn50", SRN30: "_srn30"}
ARCHITECTURES = {
    "ResNet": "resnet",
    "WideResNet": "wide_resnet",
    "AlexNet": "alexnet",
    "DenseNet": "densenet",
    "VGG": "vgg",
}
NETWORKS = {
    "ResNet": "ResNet-110, 1,973,236 parameters",
    "WideResNet": "WideResNet-28-10, 36,539,124 parameters",
    "AlexNet": "AlexNet, 4,965,092 parameters",
    "DenseNet": "DenseNet-100, 800,032 parameters",
    "VGG": "VGG-19, 20,548,392 parameters",
}

RANDOM = "data.labels=random"
TWICE = 2
"""Footnote 7: random labels are trained on for twice the epochs of the clean ones."""


def classifier(
    method: str,
    architecture: str,
    data: str = "cifar100",
    changes: tuple[str, ...] = (),
    epochs: float = 1,
    label: str = "",
) -> Classifier:
    config = f"classifier_{data}_{ARCHITECTURES[architecture]}{METHODS[method]}"
    return Classifier(label or method, config, changes, epochs)


def _lines(
    architectures: Iterable[str],
    data: str = "cifar100",
    changes: Mapping[str, tuple[str, ...]] | None = None,
    epochs: float = 1,
    methods: Iterable[str] = METHODS,
    printed: Mapping[tuple[str, str], Mapping[str, str]] | None = None,
) -> tuple[Line, ...]:
    """Every method of some architectures. changes: by architecture. printed: by architecture and method."""
    return tuple(
        Line(
            classifier(method, architecture, data, (changes or {}).get(architecture, ()), epochs),
            (printed or {}).get((architecture, method), {}),
            architecture,
        )
        for architecture in architectures
        for method in methods
    )


def _between(text: str, key: str, smaller: Iterable[str], larger: Iterable[str], *panels: str) -> tuple[Claim, ...]:
    """Each of some methods is below each of others."""
    larger = list(larger)
    return tuple(Claim(text, value_of(key), one, other, panels) for one in smaller for other in larger)


RECIPE = "SGD 0.1 (AlexNet 0.01), momentum 0.9, batch 128, augmentation not stated"
SIZES = "ResNet-110, WideResNet-28-10, AlexNet, DenseNet-100, VGG-19"
CLEAN = {
    "data": "CIFAR-100",
    "labels": "given",
    "network": SIZES,
    "recipe": RECIPE,
    "epochs": "not stated",
    "measured": "not stated",
    "seeds": "5",
}
SHATTERED = CLEAN | {
    "labels": "random",
    "recipe": f"{RECIPE}; VGG 0.01",
    "epochs": "twice those of clean labels",
}
SHATTERING = dict.fromkeys(ARCHITECTURES, (RANDOM,)) | {"VGG": (RANDOM, "train.learning_rate=0.01")}

TEST, TRAINING = COLUMNS["test accuracy, %"].key, COLUMNS["training accuracy, %"].key
SRN_IS_BEST = (
    *_between("SRN's test accuracy is always higher than Vanilla's", TEST, [VANILLA], [SRN50, SRN30]),
    *_between("SRN's test accuracy is always higher than SN's", TEST, [SN], [SRN30]),
    *_between(
        "SRN's test accuracy is always higher than SN's, except for SRN-50 on AlexNet",
        TEST,
        [SN],
        [SRN50],
        *(name for name in ARCHITECTURES if name != "AlexNet"),
    ),
)
MEMORIZES_LESS = _between("SRN memorizes less of random labels", TRAINING, [SRN50, SRN30], [SN, VANILLA])
SRN_TEXT = "73.2 (text: SRN, c not stated)"

TABLES: dict[str, Table] = {}

FIGURES: dict[str, Figure] = {
    "2": Bars(
        "Test accuracies on CIFAR-100, clean labels",
        ("test accuracy, %",),
        _lines(
            ARCHITECTURES,
            printed={
                ("ResNet", VANILLA): {"test accuracy, %": "not printed; 72.4 in Figure 1"},
                ("ResNet", SN): {"test accuracy, %": "71.5 (text)"},
                ("ResNet", SRN50): {"test accuracy, %": SRN_TEXT},
                ("ResNet", SRN30): {"test accuracy, %": SRN_TEXT},
            },
        ),
        CLEAN,
        claims=(
            *SRN_IS_BEST,
            *_between("SN performs slightly worse than Vanilla", TEST, [SN], [VANILLA], "ResNet", "WideResNet"),
        ),
    ),
    "3": Bars(
        "Training accuracies on CIFAR-100, random labels",
        ("training accuracy, %",),
        _lines(ARCHITECTURES, changes=SHATTERING, epochs=TWICE),
        SHATTERED,
        claims=MEMORIZES_LESS,
    ),
}
