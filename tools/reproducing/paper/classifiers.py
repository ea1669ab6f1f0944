"""Numbers and claims about classifiers in Sanyal et al. 2020: sections 3, 5.1 and 5.2, appendix D.

Most bar charts have no printed numbers. Orders of models that the text claims are `Claim`s, compared with our runs.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from reproducing.classifiers import ClassifierModel
from reproducing.paper.content import Claim, Line, PaperContent, in_panels

VANILLA, SN, SRN50, SRN30 = "Vanilla", "SN", "SRN-50", "SRN-30"
METHODS: dict[str, tuple[str, ...]] = {VANILLA: (), SN: ("sn",), SRN50: ("srn50",), SRN30: ("srn30",)}
"""Variants of a configuration, by method."""
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
ON_10 = ("ResNet", "WideResNet", "AlexNet", "DenseNet")
ON_COMPLEXITY = ("ResNet", "WideResNet", "DenseNet")

TEST, TRAINED = "test accuracy, %", "training accuracy, %"
TEST_ERROR, TRAINING_ERROR, GENERALIZATION = "test error, %", "training error, %", "generalization error, %"
SENSITIVITIES = ("noise sensitivity, maximum", "noise sensitivity, mean")
COMPLEXITIES = {"log Jac-Norm": "jac_norm", "log Spec-L1": "spec_l1", "log Spec-Fro": "spec_fro"}  # the paper's order

RANDOM = "data.labels=random"
SLOWLY = "train.learning_rate=0.01"
FAST = "train.learning_rate=0.1"
DECAYS = {"WD": "train.weight_decay=0.0005", "no WD": "train.weight_decay=0.0"}
TWICE = 2  # factor on the epochs of clean labels, footnote 7
EARLY = 200 / 300  # Table 1 has 200 epochs, footnote 8; the recipes of ResNet-110 and AlexNet have 300
SOON = 50 / 200  # Table 6 has 50 epochs; the recipe of WideResNet has 200

Changes = tuple[str, ...]
NOTHING: Mapping[str, str] = {}


def _model(
    architecture: str, method: str, changes: Changes = (), epochs: float = 1, *, data: str = "cifar100", label: str = ""
) -> ClassifierModel:
    variants = ((data,) if data != "cifar100" else ()) + METHODS[method]
    config = f"classifier_cifar100_{ARCHITECTURES[architecture]}"
    return ClassifierModel(label or method, config, variants, changes, epochs)


def _lines(
    changes: Mapping[str, Changes],
    *,
    data: str = "cifar100",
    epochs: float = 1,
    methods: Iterable[str] = METHODS,
    resnet: Mapping[str, str] = NOTHING,
) -> tuple[Line, ...]:
    """Lines for every method, with a section for each architecture.

    Args:
        changes: overrides of the recipe, by architecture.
        resnet: printed test accuracies of ResNets, by method.
    """
    return tuple(
        Line(
            _model(architecture, method, changed, epochs, data=data),
            {TEST: resnet[method]} if architecture == "ResNet" and method in resnet else {},
            architecture,
        )
        for architecture, changed in changes.items()
        for method in methods
    )


def _decayed(architecture: str, changes: Changes, epochs: float = 1) -> tuple[Line, ...]:
    """Lines for every method with and without weight decay: "SN, WD" and "SN, no WD"."""
    return tuple(
        Line(_model(architecture, method, (*changes, decay), epochs, label=f"{method}, {name}"), {}, architecture)
        for name, decay in DECAYS.items()
        for method in METHODS
    )


def _section(
    section: str,
    architecture: str,
    columns: Iterable[str],
    printed: Mapping[str, str],
    changes: Changes = (),
    *,
    epochs: float = 1,
    protocol: Mapping[str, str] = NOTHING,
) -> tuple[Line, ...]:
    """Lines of a table's section; `printed` has the values of all columns, by method."""
    return tuple(
        Line(
            _model(architecture, method, changes, epochs),
            dict(zip(columns, values.split(" | "), strict=True)),
            section,
            protocol,
        )
        for method, values in printed.items()
    )


def _with(decay: str, *methods: str) -> list[str]:
    """Labels that `_decayed` gives to methods."""
    return [f"{method}, {decay}" for method in methods]


def _orders(
    text: str, columns: str | Iterable[str], smaller: Sequence[str], larger: Sequence[str], *panels: str
) -> tuple[Claim, ...]:
    """Claims that each model of `smaller` is below each model of `larger`."""
    return tuple(
        Claim(text, column, one, other, panels)
        for column in ((columns,) if isinstance(columns, str) else columns)
        for one in smaller
        for other in larger
    )


def _chain(text: str, column: str, *labels: str) -> tuple[Claim, ...]:
    """Claims that each model is below the next one."""
    return tuple(claim for pair in itertools.pairwise(labels) for claim in _orders(text, column, [pair[0]], [pair[1]]))


SRN_IS_BEST = (
    *_orders("SRN's test accuracy is always higher than Vanilla's", TEST, [VANILLA], [SRN50, SRN30]),
    *_orders("SRN's test accuracy is always higher than SN's", TEST, [SN], [SRN30]),
    *_orders(
        "SRN's test accuracy is always higher than SN's",
        *(TEST, [SN], [SRN50]),
        *(name for name in ARCHITECTURES if name != "AlexNet"),  # where the paper calls them about equal
    ),
)
OUTPERFORMS = _orders("SRN outperforms SN and Vanilla", TEST, [SN, VANILLA], [SRN50, SRN30])
IS_LESS_COMPLEX = (
    *(
        claim
        for column in COMPLEXITIES
        for method in (SRN30, SRN50)
        for claim in _orders(f"{method} is better than SN (the paper: SRN is, in 7 of 9 cases)", column, [method], [SN])
    ),
    *_orders("SN and SRN are much smaller than Vanilla", COMPLEXITIES, [SN, SRN50, SRN30], [VANILLA]),
)
FITS_LESS = "a more aggressive constraint of the stable rank decreases the fit of random labels"
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
                *(TEST_ERROR, _with(decay, SRN50), _with(decay, SRN30, SN, VANILLA)),
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


def _networks(*architectures: str) -> dict[str, str]:
    """Protocol entry with the names of networks; a single one has its number of parameters."""
    names = [NETWORKS[name] for name in architectures]
    return {"network": names[0] if len(names) == 1 else ", ".join(name.partition(",")[0] for name in names)}


def _stopping(alexnet: float, *architectures: str) -> dict[str, Changes]:
    """Recipes that stop at training accuracy 0.99, for AlexNet at `alexnet`, which it reaches with SRN-30."""
    accuracies = dict.fromkeys(architectures, 0.99) | {"AlexNet": alexnet}
    return {name: (f"train.stop_accuracy={accuracies[name]}",) for name in architectures}


CLEAN = {
    "data": "CIFAR-100",
    "labels": "given",
    **_networks(*ARCHITECTURES),
    "recipe": "SGD 0.1 (AlexNet 0.01), momentum 0.9, batch 128, augmentation not stated",
    "epochs": "not stated",
    "measured": "not stated",
    "seeds": "not stated",
}
SHATTERED = CLEAN | {"labels": "random", "epochs": "twice those of clean labels"}
SLOW = CLEAN | {"recipe": "SGD 0.01, weight decay 5e-4 or none, otherwise not stated"}
ON_CIFAR10 = {"data": "CIFAR-10"}
IMAGES = {"measured": "10,000 images, split not stated"}
SHATTERING = dict.fromkeys(ARCHITECTURES, (RANDOM,)) | {"VGG": (RANDOM, SLOWLY)}

LOGARITHMS = (
    "The base of the paper's logarithms is not stated; ours are natural, and computed as sums, so that none is "
    "infinite. Ours are of the images whose margin is positive; what the paper does with others is not stated."
)
COMPLEXITY = {
    "ResNet": {VANILLA: "17.7 | ∞ | ∞", SN: "17.8 | 10.8 | 7.4", SRN30: "17.2 | 10.7 | 7.2"},
    "WideResNet": {
        VANILLA: "16.2 | 14.60 | 11.18",
        SN: "16.13 | 7.23 | 4.5",
        SRN50: "15.8 | 7.3 | 4.5",
        SRN30: "15.7 | 7.20 | 4.4",
    },
    "DenseNet": {
        VANILLA: "19.2 | ∞ | ∞",
        SN: "17.8 | 12.2 | 9.4",
        SRN50: "17.6 | 12 | 9.2",
        SRN30: "17.7 | 11.8 | 9.0",
    },
}

TABLES: dict[str, PaperContent] = {
    "1": PaperContent(
        "Training error, random labels, low learning rate",
        (TRAINING_ERROR,),
        (
            *_section(
                *("weight decay", "ResNet", [TRAINING_ERROR]),
                {SRN50: "12.02 ± 1.77", SRN30: "11.87 ± 0.57", SN: "11.13 ± 2.56", VANILLA: "10.56 ± 2.32"},
                (RANDOM, SLOWLY, DECAYS["WD"]),
                epochs=EARLY,
            ),
            *_section(
                *("no weight decay", "ResNet", [TRAINING_ERROR]),
                {SRN50: "17.71 ± 2.30", SRN30: "19.04 ± 4.53", SN: "17.22 ± 1.94", VANILLA: "13.49 ± 1.93"},
                (RANDOM, SLOWLY, DECAYS["no WD"]),
                epochs=EARLY,
            ),
        ),
        SLOW | _networks("ResNet") | {"labels": "random", "epochs": "200"},
    ),
    "5": PaperContent(
        "90th percentiles of the logarithms of complexity measures",
        tuple(COMPLEXITIES),
        tuple(
            line
            for name, printed in COMPLEXITY.items()
            for line in _section(name, name, COMPLEXITIES, printed, protocol=_networks(name))
        ),
        CLEAN | IMAGES,
        LOGARITHMS,
    ),
    "6": PaperContent(
        "Training error, random labels, low learning rate",
        (TRAINING_ERROR,),
        _section(
            *("", "WideResNet", [TRAINING_ERROR]),
            {SRN30: "29.04", SN: "17.24", VANILLA: "1.22"},
            (RANDOM, SLOWLY, DECAYS["WD"]),
            epochs=SOON,
        ),
        CLEAN
        | _networks("WideResNet")
        | {"labels": "random", "recipe": "SGD 0.01, weight decay 5e-4, otherwise not stated", "epochs": "50"},
    ),
    "7": PaperContent(
        "Test accuracy, clean labels, in the settings of Table 1",
        (TEST,),
        (
            *_section(
                *("no weight decay", "ResNet", [TEST]),
                {VANILLA: "69.2 ± 0.5", SN: "69 ± 0.1", SRN50: "69.1 ± 0.85", SRN30: "69.3 ± 0.4"},
                (SLOWLY, DECAYS["no WD"]),
                epochs=EARLY,
            ),
            *_section(
                *("weight decay", "ResNet", [TEST]),
                {VANILLA: "70.4 ± 0.3", SN: "71.35 ± 0.25", SRN50: "70.6 ± 0.1", SRN30: "70.6 ± 0.1"},
                (SLOWLY, DECAYS["WD"]),
                epochs=EARLY,
            ),
        ),
        SLOW | _networks("ResNet") | {"epochs": "as in Table 1: 200"},
        "The paper's caption says CIFAR-10 and a high learning rate, its text CIFAR-100 and the low one of Table 1; "
        "the numbers fit the text, which is followed here.",
    ),
}

_bars = partial(PaperContent, drawn="bars")
SRN_TEXT = "73.2 (text: SRN, c not stated)"

FIGURES: dict[str, PaperContent] = {
    "1": _bars(
        "Noise sensitivity",
        (*SENSITIVITIES, TEST),
        _lines({"ResNet": ()}, methods=(VANILLA, SN, SRN30), resnet={VANILLA: "72.4", SN: "71.5", SRN30: "73.1"}),
        CLEAN | _networks("ResNet") | {"measured": "maximum over images, how many not stated"},
        claims=_orders("SRN is much less sensitive to noise than SN", SENSITIVITIES, [SRN30], [SN]),
    ),
    "2": _bars(
        "Test accuracy, clean labels",
        (TEST,),
        _lines(
            dict.fromkeys(ARCHITECTURES, ()),
            resnet={
                VANILLA: "72.4 (Figure 1)",
                SN: "71.5 (text)",
                SRN50: SRN_TEXT,
                SRN30: SRN_TEXT,
            },
        ),
        CLEAN | {"seeds": "5"},
        claims=(
            *SRN_IS_BEST,
            *_orders("SN performs slightly worse than Vanilla", TEST, [SN], [VANILLA], "ResNet", "WideResNet"),
        ),
    ),
    "3": _bars(
        "Training accuracy, random labels",
        (TRAINED,),
        _lines(SHATTERING, epochs=TWICE),
        SHATTERED | {"recipe": f"{CLEAN['recipe']}; VGG 0.01"},
        claims=_orders("SRN memorizes less of random labels", TRAINED, [SRN50, SRN30], [SN, VANILLA]),
    ),
    "4": PaperContent(
        "Logarithms of complexity measures",
        tuple(COMPLEXITIES),
        in_panels(
            {name: tuple(line.model for line in TABLES["5"].lines if line.section == name) for name in ON_COMPLEXITY}
        ),
        CLEAN | _networks(*ON_COMPLEXITY) | IMAGES,
        "Drawn is the first seed of each, without Vanilla where the paper leaves it out as too far to the right. "
        f"{LOGARITHMS}",
        IS_LESS_COMPLEX,
        "histograms",
        tuple(f"complexity/{name}" for name in COMPLEXITIES.values()),
        {
            (name, f"complexity/{measure}"): (VANILLA,)
            for name in ("ResNet", "DenseNet")  # the paper draws Vanilla for WideResNet
            for measure in ("spec_l1", "spec_fro")
        },
    ),
    "6": _bars(
        "AlexNet with a large learning rate, clean labels",
        (GENERALIZATION, TEST_ERROR),
        _decayed("AlexNet", (FAST,)),
        CLEAN | _networks("AlexNet") | {"recipe": "SGD 0.1, weight decay 5e-4 or none, otherwise not stated"},
        "Generalization error: training accuracy less test accuracy.",
        LARGE_RATE,
    ),
    "7": _bars(
        "Training error, random labels, low learning rate",
        (TRAINING_ERROR,),
        (*_decayed("AlexNet", (RANDOM, SLOWLY), EARLY), *_decayed("ResNet", (RANDOM, SLOWLY), EARLY)),
        SLOW | _networks("AlexNet", "ResNet") | {"labels": "random", "epochs": "not stated; ours as in Table 1"},
        claims=tuple(
            claim for decay in DECAYS for claim in _chain(FITS_LESS, TRAINING_ERROR, *_with(decay, SN, SRN50, SRN30))
        ),
    ),
    "8": _bars(
        "Test accuracy, clean labels, training stopped by its accuracy",
        (TEST,),
        _lines(_stopping(0.55, *ARCHITECTURES)),
        CLEAN | {"epochs": "until training accuracy 0.99, AlexNet 0.55"},
        claims=OUTPERFORMS,
    ),
    "9": _bars(
        "Test accuracy on CIFAR-10, clean labels, training stopped by its accuracy",
        (TEST,),
        _lines(_stopping(0.85, *ON_10), data="cifar10"),
        CLEAN | ON_CIFAR10 | _networks(*ON_10) | {"epochs": "until training accuracy 0.99, AlexNet 0.85"},
        claims=OUTPERFORMS,
    ),
    "10": _bars(
        "Test accuracy on CIFAR-10, clean labels",
        (TEST,),
        _lines(dict.fromkeys(ON_10, ()), data="cifar10"),
        CLEAN | ON_CIFAR10 | _networks(*ON_10),
        claims=OUTPERFORMS,
    ),
    "11": _bars(
        "Training accuracy on CIFAR-10, random labels",
        (TRAINED,),
        _lines(dict.fromkeys(("ResNet", "AlexNet"), (RANDOM,)), data="cifar10", epochs=TWICE),
        SHATTERED | ON_CIFAR10 | {"network": "ResNet-110 (printed as Resnet100), AlexNet"},
        claims=_orders("SRN is much better than SN and Vanilla", TRAINED, [SRN50, SRN30], [SN, VANILLA]),
    ),
}
