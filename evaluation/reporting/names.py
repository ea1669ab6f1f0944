"""Plain names of values for people, and the few values that reports show first."""

from collections.abc import Iterable

EXTRACTED = {  # values that depend on an extractor, whose name follows a slash unless it is official Inception
    "fid": "FID",
    "fid_floor": "FID of real images",
    "fid_infinity": "FID-infinity",
    "is": "Inception Score",
    "kid": "KID",
    "kid_all_pairs": "KID over all pairs",
    "precision": "Precision",
    "recall": "Recall",
    "f_score": "F-score",
    "density": "Density",
    "coverage": "Coverage",
    "intra_fid": "Intra-FID",
    "intra_kid": "Intra-KID",
    "intra_precision": "Precision by class",
    "intra_recall": "Recall by class",
    "intra_f_score": "F-score by class",
    "intra_density": "Density by class",
    "intra_coverage": "Coverage by class",
    "gan_test": "GAN-test accuracy",
    "gan_test_real": "GAN-test accuracy of real images",
}
WORDS = {  # parts of other keys; a part without an entry keeps its name
    "gan_train": "GAN-train accuracy",
    "nd": "ND",
    "nd_short": "ND, few steps",
    "elhist": "Lipschitz constant",
    "jacobian": "Jacobian norm",
    "bounds": "Lipschitz bounds",
    "real_fake": "real-generated",
    "real_real": "real-real",
    "fake_fake": "generated-generated",
    "test_fake": "test-generated",
    "fake": "generated",
    "real_near": "near real",
    "fake_near": "near generated",
    "test_near": "near test",
    "spec_fro": "Spec-Fro",
    "spec_l1": "Spec-L1",
    "jac_norm": "Jac-Norm",
    "noise": "noise sensitivity",
    "local": "local Lipschitz constant",
    "global": "global Lipschitz constant",
    "spectra": "weights",
}
FIRST = ("fid", "is", "precision", "recall", "gan_test", "accuracy", "loss")
OF_REAL = {"fid": "fid_floor", "gan_test": "gan_test_real"}  # value of generated images -> the same of real ones


def plain_names(keys: Iterable[str]) -> dict[str, str]:
    """Returns a name for each key, such as "FID" for "fid" and "FID (classifier)" for "fid/classifier-1a2b3c4d".

    A score by another extractor than official Inception is never called by the metric's name alone. If the keys have
    several extractors, names hold them in full.
    """
    split = {key: key.partition("/") for key in keys}
    extractors = {extractor for metric, _, extractor in split.values() if metric in EXTRACTED}
    names = {}
    for key, (metric, _, rest) in split.items():
        if metric not in EXTRACTED:
            name = ", ".join(WORDS.get(part, part.replace("_", " ")) for part in key.split("/"))
            names[key] = name[:1].upper() + name[1:]
        elif len(extractors) > 1:
            names[key] = f"{EXTRACTED[metric]}, {rest or 'inception'}"
        else:
            names[key] = EXTRACTED[metric] + (f" ({rest.partition('-')[0]})" if rest else "")
    return names


def ordered(keys: Iterable[str]) -> tuple[list[str], list[str]]:
    """Splits keys into those of FIRST, in its order, and the others in the order given."""
    keys = list(keys)
    first = [key for name in FIRST for key in keys if name in (key, _metric(key))]
    return first, [key for key in keys if key not in first]


def extractors_of(keys: Iterable[str]) -> list[str]:
    """Returns the names of the extractors in keys, in their order."""
    return list(dict.fromkeys(key.partition("/")[2] or "inception" for key in keys if _metric(key)))


def real_key(key: str) -> str:
    """Returns the key of the same value of real images, such as "fid_floor/pixels" for "fid/pixels"; "" if none."""
    metric, slash, extractor = key.partition("/")
    return f"{OF_REAL[metric]}{slash}{extractor}" if metric in OF_REAL else ""


def _metric(key: str) -> str:
    """Returns the name before the extractor; "" for a key without an extractor."""
    metric = key.partition("/")[0]
    return metric if metric in EXTRACTED else ""
