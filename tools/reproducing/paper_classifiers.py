"""What Sanyal et al. 2020 print of their classifiers: sections 3, 5.1 and 5.2, appendix D.

Of most bars no number is printed. Orders that a text claims are `Claim`s, which our runs confirm or not.
"""

import itertools
from collections.abc import Iterable, Mapping

from reproducing.classifiers import ClassifierModel
from reproducing.columns import COLUMNS
from reproducing.content import BarFigure, Claim, HistogramFigure, Line, PaperFigure, PaperTable
from reproducing.measured import value_of

VANILLA, SN, SRN50, SRN30 = "Vanilla", "SN", "SRN-50", "SRN-30"
METHODS = {VANILLA: (), SN: ("sn",), SRN50: ("srn50",), SRN30: ("srn30",)}
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
SLOWLY = "train.learning_rate=0.01"
FAST = "train.learning_rate=0.1"
DECAYS = {"WD": "train.weight_decay=0.0005", "no WD": "train.weight_decay=0.0"}
TWICE = 2
"""Of the epochs with the given labels: footnote 7."""
EARLY = 200 / 300
"""Footnote 8: Table 1 is of 200 epochs, where ResNet-110's and AlexNet's recipes have 300."""
SOON = 50 / 200
"""Of WideResNet's epochs, in Table 6."""

Changes = tuple[str, ...]
Printed = Mapping[tuple[str, str], Mapping[str, str]]
NOTHING: Printed = {}
"""By section and label: what is printed, by column."""


def _model(architecture: str, method: str, data: str, changes: Changes, epochs: float, label: str) -> ClassifierModel:
    variants = ((data,) if data != "cifar100" else ()) + METHODS[method]
    return ClassifierModel(label, f"classifier_cifar100_{ARCHITECTURES[architecture]}", variants, changes, epochs)


def _lines(
    changes: Mapping[str, Changes],
    *,
    data: str = "cifar100",
    epochs: float = 1,
    methods: Iterable[str] = METHODS,
    printed: Printed = NOTHING,
) -> tuple[Line, ...]:
    """Every method of some architectures, which are the sections. changes: of the recipe, by architecture."""
    return tuple(
        Line(
            _model(architecture, method, data, changed, epochs, method),
            printed.get((architecture, method), {}),
            architecture,
        )
        for architecture, changed in changes.items()
        for method in methods
    )


def _decayed(architecture: str, changes: Changes, epochs: float) -> tuple[Line, ...]:
    """Every method of an architecture with and without weight decay: "SN, WD" and "SN, no WD"."""
    return tuple(
        Line(_model(architecture, method, "cifar100", (*changes, decay), epochs, f"{method}, {name}"), {}, architecture)
        for name, decay in DECAYS.items()
        for method in METHODS
    )


def _with(decay: str, *methods: str) -> list[str]:
    """Labels of `_decayed`."""
    return [f"{method}, {decay}" for method in methods]


def _of(*architectures: str) -> dict[str, Changes]:
    """The recipes as they are."""
    return dict.fromkeys(architectures, ())


def _orders(text: str, column: str, smaller: Iterable[str], larger: Iterable[str], *panels: str) -> tuple[Claim, ...]:
    """Each of some models is below each of others."""
    measure, larger = value_of(COLUMNS[column].key), list(larger)
    return tuple(Claim(text, measure, one, other, panels, column) for one in smaller for other in larger)


def _chain(text: str, column: str, *labels: str) -> tuple[Claim, ...]:
    """Each model is below the next one."""
    return tuple(claim for pair in itertools.pairwise(labels) for claim in _orders(text, column, [pair[0]], [pair[1]]))


TEST, TRAINED = "test accuracy, %", "training accuracy, %"
TEST_ERROR, TRAINING_ERROR, GENERALIZATION = "test error, %", "training error, %", "generalization error, %"
COMPLEXITIES = {"log Jac-Norm": "jac_norm", "log Spec-L1": "spec_l1", "log Spec-Fro": "spec_fro"}  # the paper's order

SRN_IS_BEST = (
    *_orders("SRN's test accuracy is always higher than Vanilla's", TEST, [VANILLA], [SRN50, SRN30]),
    *_orders("SRN's test accuracy is always higher than SN's", TEST, [SN], [SRN30]),
    *_orders(
        "SRN's test accuracy is always higher than SN's",  # with the exception of SRN-50 on AlexNet, of about SN's
        TEST,
        [SN],
        [SRN50],
        *(name for name in ARCHITECTURES if name != "AlexNet"),
    ),
)
MEMORIZES_LESS = _orders("SRN memorizes less of random labels", TRAINED, [SRN50, SRN30], [SN, VANILLA])
IS_LESS_COMPLEX = (
    *(
        claim
        for column in COMPLEXITIES
        for method in (SRN30, SRN50)
        for claim in _orders(f"{method} is better than SN (the paper: SRN is, in 7 of 9 cases)", column, [method], [SN])
    ),
    *(
        claim
        for column in COMPLEXITIES
        for claim in _orders("SN and SRN are much smaller than Vanilla", column, [SN, SRN50, SRN30], [VANILLA])
    ),
)

OF_ALL, ON_10 = tuple(ARCHITECTURES), ("ResNet", "WideResNet", "AlexNet", "DenseNet")
ON_COMPLEXITY = ("ResNet", "WideResNet", "DenseNet")


def _networks(*architectures: str) -> dict[str, str]:
    """As part of a protocol."""
    names = [NETWORKS[name] for name in architectures]
    return {"network": names[0] if len(names) == 1 else ", ".join(name.partition(",")[0] for name in names)}


CLEAN = {
    "data": "CIFAR-100",
    "labels": "given",
    **_networks(*OF_ALL),
    "recipe": "SGD 0.1 (AlexNet 0.01), momentum 0.9, batch 128, augmentation not stated",
    "epochs": "not stated",
    "measured": "not stated",
    "seeds": "not stated",
}
SHATTERED = CLEAN | {"labels": "random", "epochs": "twice those of clean labels"}
SLOW = CLEAN | {"recipe": "SGD 0.01, weight decay 5e-4 or none, otherwise not stated"}
ON_CIFAR10 = {"data": "CIFAR-10"}
SHATTERING = dict.fromkeys(ARCHITECTURES, (RANDOM,)) | {"VGG": (RANDOM, SLOWLY)}


def _stopping(alexnet: float, *architectures: str) -> dict[str, Changes]:
    """At a training accuracy of 0.99; AlexNet at another, which SRN-30 reaches."""
    accuracies = dict.fromkeys(architectures, 0.99) | {"AlexNet": alexnet}
    return {name: (f"train.stop_accuracy={accuracies[name]}",) for name in architectures}


def _table(
    section: str, changes: Changes, column: str, values: Mapping[str, str], architecture: str, epochs: float
) -> tuple[Line, ...]:
    """A section of a table. values: as printed, by method."""
    return tuple(
        Line(_model(architecture, method, "cifar100", changes, epochs, method), {column: value}, section)
        for method, value in values.items()
    )


def _complexities(architecture: str, printed: Mapping[str, tuple[str, str, str]]) -> tuple[Line, ...]:
    return tuple(
        Line(
            _model(architecture, method, "cifar100", (), 1, method),
            dict(zip(COMPLEXITIES, values, strict=True)),
            architecture,
            _networks(architecture),
        )
        for method, values in printed.items()
    )


LOGARITHMS = (
    "The base of the paper's logarithms is not stated; ours are natural, and computed as sums, so that none is "
    "infinite. Ours are of the images whose margin is positive; what the paper does with others is not stated."
)

TABLES: dict[str, PaperTable] = {
    "1": PaperTable(
        "Training error, random labels, low learning rate",
        (TRAINING_ERROR,),
        (
            *_table(
                "weight decay",
                (RANDOM, SLOWLY, DECAYS["WD"]),
                TRAINING_ERROR,
                {SRN50: "12.02 ± 1.77", SRN30: "11.87 ± 0.57", SN: "11.13 ± 2.56", VANILLA: "10.56 ± 2.32"},
                "ResNet",
                EARLY,
            ),
            *_table(
                "no weight decay",
                (RANDOM, SLOWLY, DECAYS["no WD"]),
                TRAINING_ERROR,
                {SRN50: "17.71 ± 2.30", SRN30: "19.04 ± 4.53", SN: "17.22 ± 1.94", VANILLA: "13.49 ± 1.93"},
                "ResNet",
                EARLY,
            ),
        ),
        SLOW | _networks("ResNet") | {"labels": "random", "epochs": "200"},
    ),
    "5": PaperTable(
        "90th percentiles of the logarithms of complexity measures",
        tuple(COMPLEXITIES),
        (
            *_complexities(
                "ResNet",
                {VANILLA: ("17.7", "∞", "∞"), SN: ("17.8", "10.8", "7.4"), SRN30: ("17.2", "10.7", "7.2")},
            ),
            *_complexities(
                "WideResNet",
                {
                    VANILLA: ("16.2", "14.60", "11.18"),
                    SN: ("16.13", "7.23", "4.5"),
                    SRN50: ("15.8", "7.3", "4.5"),
                    SRN30: ("15.7", "7.20", "4.4"),
                },
            ),
            *_complexities(
                "DenseNet",
                {
                    VANILLA: ("19.2", "∞", "∞"),
                    SN: ("17.8", "12.2", "9.4"),
                    SRN50: ("17.6", "12", "9.2"),
                    SRN30: ("17.7", "11.8", "9.0"),
                },
            ),
        ),
        CLEAN | {"measured": "10,000 images, split not stated"},
        LOGARITHMS,
        IS_LESS_COMPLEX,
    ),
    "6": PaperTable(
        "Training error, random labels, low learning rate",
        (TRAINING_ERROR,),
        _table(
            "",
            (RANDOM, SLOWLY, DECAYS["WD"]),
            TRAINING_ERROR,
            {SRN30: "29.04", SN: "17.24", VANILLA: "1.22"},
            "WideResNet",
            SOON,
        ),
        CLEAN
        | _networks("WideResNet")
        | {
            "labels": "random",
            "recipe": "SGD 0.01, weight decay 5e-4, otherwise not stated",
            "epochs": "50",
        },
    ),
    "7": PaperTable(
        "Test accuracy, clean labels, in the settings of Table 1",
        (TEST,),
        (
            *_table(
                "no weight decay",
                (SLOWLY, DECAYS["no WD"]),
                TEST,
                {VANILLA: "69.2 ± 0.5", SN: "69 ± 0.1", SRN50: "69.1 ± 0.85", SRN30: "69.3 ± 0.4"},
                "ResNet",
                EARLY,
            ),
            *_table(
                "weight decay",
                (SLOWLY, DECAYS["WD"]),
                TEST,
                {VANILLA: "70.4 ± 0.3", SN: "71.35 ± 0.25", SRN50: "70.6 ± 0.1", SRN30: "70.6 ± 0.1"},
                "ResNet",
                EARLY,
            ),
        ),
        SLOW | _networks("ResNet") | {"epochs": "as in Table 1: 200"},
        "The paper's caption says CIFAR-10 and a high learning rate, its text CIFAR-100 and the low one of Table 1; "
        "the numbers fit the text, which is followed here.",
    ),
}

LARGE_RATE = (
    *(
        claim
        for decay in DECAYS
        for claim in (
            *_chain(
                "generalization error decreases monotonically with c", GENERALIZATION, *_with(decay, SRN30, SRN50, SN)
            ),
            *_orders(
                "test error is the lowest for c = 0.5",
                TEST_ERROR,
                _with(decay, SRN50),
                _with(decay, SRN30, SN, VANILLA),
            ),
        )
    ),
    *(
        claim
        for method in METHODS
        for claim in (
            *_chain("weight decay hurts generalization error", GENERALIZATION, f"{method}, no WD", f"{method}, WD"),
            *_chain("weight decay has a slightly positive effect", TEST_ERROR, f"{method}, WD", f"{method}, no WD"),
        )
    ),
)
SRN_TEXT = "73.2 (text: SRN, c not stated)"

FIGURES: dict[str, PaperFigure] = {
    "1": BarFigure(
        "Noise sensitivity",
        ("noise sensitivity, maximum", "noise sensitivity, mean", TEST),
        _lines(
            _of("ResNet"),
            methods=(VANILLA, SN, SRN30),
            printed={
                ("ResNet", VANILLA): {TEST: "72.4"},
                ("ResNet", SN): {TEST: "71.5"},
                ("ResNet", SRN30): {TEST: "73.1"},
            },
        ),
        CLEAN | _networks("ResNet") | {"measured": "maximum over images, how many not stated"},
        claims=tuple(
            claim
            for column in ("noise sensitivity, maximum", "noise sensitivity, mean")
            for claim in _orders("SRN is much less sensitive to noise than SN", column, [SRN30], [SN])
        ),
    ),
    "2": BarFigure(
        "Test accuracy, clean labels",
        (TEST,),
        _lines(
            _of(*OF_ALL),
            printed={
                ("ResNet", VANILLA): {TEST: "not printed; 72.4 in Figure 1"},
                ("ResNet", SN): {TEST: "71.5 (text)"},
                ("ResNet", SRN50): {TEST: SRN_TEXT},
                ("ResNet", SRN30): {TEST: SRN_TEXT},
            },
        ),
        CLEAN | {"seeds": "5"},
        claims=(
            *SRN_IS_BEST,
            *_orders("SN performs slightly worse than Vanilla", TEST, [SN], [VANILLA], "ResNet", "WideResNet"),
        ),
    ),
    "3": BarFigure(
        "Training accuracy, random labels",
        (TRAINED,),
        _lines(SHATTERING, epochs=TWICE),
        SHATTERED | {"recipe": f"{CLEAN['recipe']}; VGG 0.01"},
        claims=MEMORIZES_LESS,
    ),
    "4": HistogramFigure(
        "Logarithms of complexity measures",
        tuple(f"complexity/{name}" for name in COMPLEXITIES.values()),
        {name: tuple(line.model for line in TABLES["5"].lines if line.section == name) for name in ON_COMPLEXITY},
        CLEAN | _networks(*ON_COMPLEXITY) | {"measured": "10,000 images, split not stated"},
        IS_LESS_COMPLEX,
        ("complexity",),
        {
            (name, f"complexity/{measure}"): (VANILLA,)
            for name in ("ResNet", "DenseNet")  # not of WideResNet
            for measure in ("spec_l1", "spec_fro")
        },
        "Drawn is the first seed of each, without Vanilla where the paper leaves it out as too far to the right. "
        f"{LOGARITHMS}",
    ),
    "6": BarFigure(
        "AlexNet with a large learning rate, clean labels",
        (GENERALIZATION, TEST_ERROR),
        _decayed("AlexNet", (FAST,), 1),
        CLEAN | _networks("AlexNet") | {"recipe": "SGD 0.1, weight decay 5e-4 or none, otherwise not stated"},
        "Generalization error: training accuracy less test accuracy.",
        LARGE_RATE,
    ),
    "7": BarFigure(
        "Training error, random labels, low learning rate",
        (TRAINING_ERROR,),
        (*_decayed("AlexNet", (RANDOM, SLOWLY), EARLY), *_decayed("ResNet", (RANDOM, SLOWLY), EARLY)),
        SLOW | _networks("AlexNet", "ResNet") | {"labels": "random", "epochs": "not stated; ours as in Table 1"},
        claims=tuple(
            claim
            for decay in DECAYS
            for claim in _chain(
                "a more aggressive constraint of the stable rank decreases the fit of random labels",
                TRAINING_ERROR,
                *_with(decay, SN, SRN50, SRN30),
            )
        ),
    ),
    "8": BarFigure(
        "Test accuracy, clean labels, training stopped by its accuracy",
        (TEST,),
        _lines(_stopping(0.55, *OF_ALL)),
        CLEAN | {"epochs": "until training accuracy 0.99, AlexNet 0.55"},
        claims=_orders("SRN outperforms SN and Vanilla", TEST, [SN, VANILLA], [SRN50, SRN30]),
    ),
    "9": BarFigure(
        "Test accuracy on CIFAR-10, clean labels, training stopped by its accuracy",
        (TEST,),
        _lines(_stopping(0.85, *ON_10), data="cifar10"),
        CLEAN | ON_CIFAR10 | _networks(*ON_10) | {"epochs": "until training accuracy 0.99, AlexNet 0.85"},
        claims=_orders("SRN outperforms SN and Vanilla", TEST, [SN, VANILLA], [SRN50, SRN30]),
    ),
    "10": BarFigure(
        "Test accuracy on CIFAR-10, clean labels",
        (TEST,),
        _lines(_of(*ON_10), data="cifar10"),
        CLEAN | ON_CIFAR10 | _networks(*ON_10),
        claims=_orders("SRN outperforms SN and Vanilla", TEST, [SN, VANILLA], [SRN50, SRN30]),
    ),
    "11": BarFigure(
        "Training accuracy on CIFAR-10, random labels",
        (TRAINED,),
        _lines(dict.fromkeys(("ResNet", "AlexNet"), (RANDOM,)), data="cifar10", epochs=TWICE),
        SHATTERED | ON_CIFAR10 | {"network": "ResNet-110 (printed as Resnet100), AlexNet"},
        claims=_orders("SRN is much better than SN and Vanilla", TRAINED, [SRN50, SRN30], [SN, VANILLA]),
    ),
}
