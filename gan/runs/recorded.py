"""Comparison of images with those of a run's training, by the fingerprints that its checkpoints hold."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from gan.data import ImageData
from gan.errors import CheckpointError, UserError
from gan.runs.finding import read_record
from gan.training.state import ClassifierState, TrainState

SAME, OTHER, UNKNOWN = "as in training", "other images than in training", "not recorded"
EVALUATED = ("test",)
"""Splits beside the training images that evaluations read."""
ANYWAY = ", or measure with the present images by eval.other_images=true, which the protocol then says"
"""Advice of evaluations for other images than those of the run."""


def other_fingerprints(load: Callable[[str], ImageData]) -> dict[str, str]:
    """Returns the fingerprints of EVALUATED splits by name; splits that are missing or cannot be read are left out.

    Args:
        load: returns the images of a split.
    """
    found = {}
    for split in EVALUATED:
        with suppress(UserError, OSError, MemoryError):  # training does not need these images
            found[split] = load(split).fingerprint
    return found


class RecordedImages(NamedTuple):
    """Fingerprints of the images of a run.

    Attributes:
        fingerprints: fingerprint of each recorded split, by name; earlier versions recorded the training images only.
        place: checkpoint or run folder, for messages.
        root: folder or archive of the data at the time of training, as an absolute path; "" if unknown.
    """

    fingerprints: Mapping[str, str]
    place: Path
    root: str

    @classmethod
    def of(cls, fingerprints: Mapping[str, str], place: Path, run: Path) -> "RecordedImages":
        """Returns the record of a run.

        Args:
            fingerprints: see `recorded_fingerprints`.
            place: see above.
            run: folder of the run.
        """
        data = read_record(run).get("data")
        root = data.get("root") if isinstance(data, dict) else ""
        return cls(fingerprints, place, root if isinstance(root, str) else "")

    def compare(self, split: str, fingerprint: str, root: str, *, accept: bool = False, advice: str = "") -> str:
        """Compares the present images of a split with the recorded ones; returns SAME, OTHER or UNKNOWN.

        Args:
            root: data.root of the present images.
            accept: whether to return OTHER for other images.
            advice: another way out, for the error message.

        Raises:
            CheckpointError: the images are not the recorded ones.
        """
        known = self.fingerprints.get(split, "")
        if not known:
            return UNKNOWN
        if known == fingerprint:
            return SAME
        if accept:
            return OTHER
        was = f", which were in {self.root} then" if self.root and self.root != absolute(root) else ""
        aim = "was trained on other images than those" if split == "train" else f"has other {split} images than those"
        raise CheckpointError(
            f"{self.place}: {aim} in {root!r} (fingerprint {known[:12]}, now {fingerprint[:12]}); set data.root to the "
            f"images of the run{was}{advice}"
        )


def notes_of(compared: Mapping[str, str]) -> list[str]:
    """Returns sentences for reports on splits that are, or may be, other images than in training.

    Args:
        compared: results of `RecordedImages.compare` by split.
    """
    sentences = {
        OTHER: "the {} images are others than in the training of the run (eval.other_images=true)",
        UNKNOWN: "the run recorded no fingerprint of its {} images, so these may be others",
    }
    return [sentences[found].format(split) for split, found in compared.items() if found in sentences]


def recorded_fingerprints(state: TrainState | ClassifierState) -> dict[str, str]:
    """Returns the fingerprints of a run's images by split."""
    return _by_split(state.data_fingerprint, state.other_fingerprints)


def stored_fingerprints(state: Mapping[str, Any]) -> dict[str, str]:
    """Returns the fingerprints in the state of a checkpoint file by split."""
    return _by_split(state["data_fingerprint"], state.get("other_fingerprints", {}))


def _by_split(train: str, others: Mapping[str, str]) -> dict[str, str]:
    return {**({"train": train} if train else {}), **others}


def absolute(root: str) -> str:
    """Returns data.root as an absolute path; "" for data without files."""
    place = Path(root)
    with suppress(RuntimeError):  # no home folder
        place = place.expanduser()
    return str(place.absolute()) if root else ""


__all__ = [
    "ANYWAY",
    "OTHER",
    "SAME",
    "UNKNOWN",
    "RecordedImages",
    "absolute",
    "notes_of",
    "other_fingerprints",
    "recorded_fingerprints",
    "stored_fingerprints",
]
