"""Comparison of stored runs, which are not computed again, with the present images."""

import json
from typing import Any

from gan.errors import UserError
from gan.runs.checkpoint import read_checkpoint
from gan.runs.engine import kind_of
from gan.runs.finding import list_checkpoints
from gan.runs.recorded import RecordedImages, stored_fingerprints
from reproducing.runs import ModelRun

ADVICE = ", or choose another --folder"


class PresentImages:
    """Fingerprints of the images that configurations name, each read once.

    Attributes:
        unreadable: reasons why images could not be read, each once.
    """

    def __init__(self) -> None:
        self.unreadable: dict[str, None] = {}
        self._known: dict[str, str] = {}

    def check(self, run: ModelRun) -> None:
        """Compares the images of a run that has a checkpoint with the present ones, as far as these can be read.

        Raises:
            CheckpointError: the run was trained on other images, or its checkpoint is damaged.
        """
        checkpoints = list_checkpoints(run.folder)
        if not checkpoints:
            return
        stored = stored_fingerprints(read_checkpoint(checkpoints[-1]).state)
        recorded = RecordedImages.of(stored, run.root, run.folder)  # one message for all runs of a folder
        for split in recorded.fingerprints:
            if now := self._fingerprint(run.config, split):
                accept = run.config.eval.other_images
                recorded.compare(split, now, run.config.data.root, accept=accept, advice=ADVICE)

    def _fingerprint(self, config: Any, split: str) -> str:
        """Returns the fingerprint of a split; "" if it cannot be read."""
        key = json.dumps([config.kind, config.data.model_dump(), split])
        if key not in self._known:
            try:
                self._known[key] = kind_of(config).load_images(split).fingerprint
            except (UserError, OSError) as error:
                self._known[key] = ""
                self.unreadable[str(error)] = None
        return self._known[key]
