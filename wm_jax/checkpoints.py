"""Checkpoints that are found damaged before they are used: Orbax writes them, a digest of the content vouches for them.

Orbax alone restores flipped bits in silence, so every save records a digest of its arrays and every restore compares
it; a checkpoint that fails is passed over for the one before it.
"""

import errno
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from wm_jax.errors import UserError
from wm_jax.metrics import say

SPARE_BYTES = 1 << 20
"""Room for what lies around the arrays."""


class DamagedCheckpoints(UserError):
    """There are checkpoints, and none of them is intact."""


class Checkpoints:
    """A folder of numbered checkpoints of one pytree of arrays, the newest few kept.

    A save is complete or absent: Orbax writes beside and renames. Saves block until they are on disk.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = folder.absolute()
        self.keep = keep
        self._manager: ocp.CheckpointManager | None = None

    def save(self, step: int, tree: Any, about: dict[str, Any] | None = None) -> str:
        """Write `tree` (arrays only) with a JSON-able record; returns the digest of its content.

        Raises:
          OSError: there is no room for it; nothing was written.
        """
        tree = jax.tree.map(np.asarray, jax.device_get(tree))
        digest = digest_of(tree)
        self._check_room(sum(leaf.nbytes for leaf in jax.tree.leaves(tree)))
        if step in self.steps():  # Orbax never overwrites: a stage was stopped just after this very save
            self._set_aside(step)
        self._open().save(
            step,
            args=ocp.args.Composite(
                tree=ocp.args.StandardSave(tree),
                about=ocp.args.JsonSave({"digest": digest, **(about or {})}),
            ),
            force=True,
        )
        return digest

    def restore(self, template: Any) -> "tuple[int, Any, dict[str, Any]] | None":
        """The newest intact checkpoint as (step, tree of NumPy arrays shaped like `template`, record), or None.

        Raises:
          DamagedCheckpoints: there are checkpoints, and none of them is intact.
          UserError: they hold arrays of other sizes.
        """
        steps = self.steps()
        shapes = jax.tree.map(lambda leaf: np.empty(np.shape(leaf), leaf.dtype), template)
        for step in reversed(steps):
            try:
                found = self._open().restore(
                    step,
                    args=ocp.args.Composite(tree=ocp.args.StandardRestore(shapes), about=ocp.args.JsonRestore()),
                )
            except (OSError, ValueError, KeyError, FileNotFoundError) as error:
                reason = str(error).split("\n")[0]
            else:
                tree = jax.tree.map(np.asarray, found["tree"])
                if jax.tree.map(np.shape, tree) != jax.tree.map(np.shape, shapes):
                    raise UserError(f"{self.folder} holds arrays of other sizes: it was made with other settings")
                if digest_of(tree) == found["about"]["digest"]:
                    return step, tree, found["about"]
                reason = "its content does not match its digest"
            moved = self._set_aside(step)
            say(f"checkpoint {step} in {self.folder} is damaged ({reason}): moved to {moved}")
        if steps:
            raise DamagedCheckpoints(f"no checkpoint in {self.folder} is intact: start its stage anew with --fresh")
        return None

    def holds(self, digest: str, template: Any) -> bool:
        """Is the newest checkpoint intact, and of this digest? `template` is as for `restore`."""
        try:
            found = self.restore(template)
        except DamagedCheckpoints:
            return False
        return found is not None and found[2]["digest"] == digest

    def about(self) -> dict[str, Any] | None:
        """The record of the newest checkpoint, without reading its arrays."""
        steps = self.steps()
        if not steps:
            return None
        return self._open().restore(steps[-1], args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]

    def steps(self) -> list[int]:
        """Step numbers of the finished checkpoints, oldest first."""
        return sorted(self._open().all_steps()) if self.folder.exists() else []

    def close(self) -> None:
        """Let go of the folder."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def _set_aside(self, step: int) -> Path:
        """Move a checkpoint out of the way, into a folder that no manager looks at."""
        self.close()
        target = self.folder.parent / f"{self.folder.name}-replaced" / f"{step}-{time.time_ns()}"
        target.parent.mkdir(exist_ok=True)
        shutil.move(self.folder / str(step), target)
        return target

    def _check_room(self, size: int) -> None:
        """Looked at beforehand: on a full disk Orbax's threads end in a heap of tracebacks."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self.folder).free < size + SPARE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self.keep, create=True, enable_async_checkpointing=False, cleanup_tmp_directories=True
            )
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        return self._manager


def digest_of(tree: Any) -> str:
    """A digest of the content: names, shapes, types and bytes of all arrays."""
    digest = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)}{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
