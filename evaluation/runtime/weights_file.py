"""Safetensors files of a network's weights, with a header of plain values and a checksum of both."""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.runtime.files import replacing


def write_weights_file(path: Path, kind: str, version: int, header: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Writes a file for `read_weights_file`, atomically. Equal content gives equal bytes.

    Args:
        kind: of the network, the name of the entry that holds the header.
        version: of the header's format.

    Raises:
        OSError: the file cannot be written.
    """
    copied = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    # A single metadata entry, because safetensors writes several in random order.
    content = json.dumps({"format": version, **header, "sha256": checksum_of(header, copied)})
    with replacing(path) as partial:
        partial.write_bytes(safetensors.torch.save(copied, {kind: content}))


def read_weights_file(path: Path, kind: str, version: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns header and tensors of a file of this kind and version. No code in the file is run.

    Raises:
        EvaluationError: it cannot be read, is damaged, or holds something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[kind])
            state = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        checksum, found = header.pop("sha256"), header.pop("format")
    except OSError as error:
        raise EvaluationError(f"it cannot be read: {error.strerror or error}") from error
    except (SafetensorError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise EvaluationError("it is damaged, or not a safetensors file of that tool") from error
    if found != version:
        raise EvaluationError(f"format: got {short(found)}, expected {version}, the one that this version reads")
    if checksum != checksum_of(header, state):
        raise EvaluationError("its checksum is wrong: it is damaged")
    return header, state


def weights_sha256(state: dict[str, Tensor]) -> str:
    """Returns the SHA-256 of names and values of a network's tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def short(value: object) -> str:
    """Returns at most 100 characters of a value in Python's notation."""
    text = repr(value)
    return text if len(text) < 100 else f"{text[:100]}..."


def checksum_of(header: dict[str, Any], state: dict[str, Tensor]) -> str:
    """Returns the SHA-256 of header and tensors, because safetensors has no checksum."""
    return hashlib.sha256((json.dumps(header, sort_keys=True) + weights_sha256(state)).encode()).hexdigest()
