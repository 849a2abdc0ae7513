"""The weights of a finished V, M or C, as others can read them: safetensors, and a JSON that says what they are.

    weights/weights.safetensors    the arrays by their names, such as "encoder.convolutions.0.kernel"
    weights/weights.json           their digest, the settings, what they were made from; with a checksum of itself

Versions before this one wrote them as checkpoints of Orbax, which are still read. Training goes on from checkpoints
(`checkpoints.py`); these are for the stages downstream, and for handing on.
"""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as as_bytes

from wm_jax.distributed import processes
from wm_jax.models.variables import combine, partition
from wm_jax.run.checkpoints import (
    SPARE_BYTES,
    Checkpoints,
    DamagedCheckpoints,
    digest_of,
    keys_as_numbers,
    layout_of,
    like,
    require_layout,
)
from wm_jax.utils.errors import UserError
from wm_jax.utils.files import plain, read_manifest, write_atomically, write_manifest

TYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "BF16": jnp.bfloat16,
    **{
        f"{kind}{8 * size}": np.dtype(f"{code}{size}")
        for kind, code in (("U", "u"), ("I", "i"))
        for size in (1, 2, 4, 8)
    },
    **{f"F{8 * size}": np.dtype(f"f{size}") for size in (2, 4, 8)},
}
"""Of the format's names for types those that JAX has."""
ARRAYS, RECORD = "weights.safetensors", "weights.json"


class Weights:
    """The folder of one artifact's weights: one set, replaced as a whole."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()

    def save(self, step: int, tree: Any, about: dict[str, Any] | None = None) -> str:
        """Write a pytree of arrays and random keys, with a JSON-able record; returns its digest. Process 0 writes.

        Args:
          step: how far it was trained.

        Raises:
          OSError: there is no room for it; nothing was written.
        """
        tree = jax.tree.map(np.asarray, jax.device_get(keys_as_numbers(tree)))
        digest = digest_of(tree)
        if processes.is_main_process():
            arrays = {name: np.array(leaf, order="C") for name, leaf in _named(tree).items()}
            content = as_bytes(arrays, metadata={"made by": "wm_jax", "digest": digest})
            self.folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self.folder).free < len(content) + SPARE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
            write_atomically(self.folder / ARRAYS, content)
            record = {"digest": digest, "layout": layout_of(tree), "step": step, **plain(about or {})}
            write_manifest(self.folder / RECORD, record, indent=1)
        return digest

    def restore(self, template: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """The weights as (step, tree of NumPy arrays and keys like `template`, record), or None where there are none.

        Where they lack all that no gradient changes (`models.variables`), a version before this one wrote them, whose
        model had none of that: it is zero.

        Args:
          template: a pytree of arrays and random keys of the same structure, shapes and types.

        Raises:
          DamagedCheckpoints: they are not what the record says.
          UserError: they hold other arrays than the template.
        """
        if self._is_older():
            return Checkpoints(self.folder).restore(template)
        about = self.about()
        if about is None:
            return None
        numbers = keys_as_numbers(template)
        empty = jax.tree.map(lambda leaf: np.empty(np.shape(leaf), leaf.dtype), numbers)
        learned, others = partition(empty)
        if others is not None and about["layout"] == layout_of(learned):
            found = self.restore(partition(template)[0])
            zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), others)
            return None if found is None else (found[0], combine(found[1], zeros), found[2])
        require_layout(self.folder, about, empty)
        try:
            arrays = _parsed((self.folder / ARRAYS).read_bytes())
            found = jax.tree.unflatten(jax.tree.structure(numbers), [arrays[name] for name in _named(numbers)])
        except (SafetensorError, FileNotFoundError, KeyError) as error:
            raise DamagedCheckpoints(f"{self.folder / ARRAYS} is damaged ({error})") from None
        if digest_of(found) != about["digest"]:
            raise DamagedCheckpoints(f"{self.folder / ARRAYS} is damaged: its content does not match its digest")
        return about["step"], jax.tree.map(like, template, found), about

    def about(self) -> dict[str, Any] | None:
        """The record, without the arrays; None where there are none.

        Raises:
          DamagedCheckpoints: it is damaged.
        """
        if self._is_older():
            return Checkpoints(self.folder).about()
        try:
            return read_manifest(self.folder / RECORD, "restore it")
        except FileNotFoundError:
            return None
        except UserError as error:
            raise DamagedCheckpoints(str(error)) from None

    def holds(self, digest: str, template: Any) -> bool:
        """Are they there, whole, and of this digest? `template` is as for `restore`."""
        try:
            found = self.restore(template)
        except DamagedCheckpoints:
            return False
        return found is not None and found[2]["digest"] == digest

    def _is_older(self) -> bool:
        """Did a version before this one write them?"""
        return not (self.folder / RECORD).exists() and bool(Checkpoints(self.folder).steps())


def _parsed(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of a file. The library's own reader for NumPy knows no bfloat16."""
    return {
        name: np.frombuffer(entry["data"], TYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in deserialize(content)
    }


def _named(tree: Any) -> dict[str, Any]:
    """The arrays by the ways to them."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
