"""Checkpoints that are found damaged before they are used: Orbax writes them, a digest of the content vouches for them.

Orbax alone restores flipped bits in silence, so every save records a digest of its arrays and every restore compares
it; a checkpoint that fails is passed over for the one before it.

Of several processes (`distributed/processes.py`) the main one alone writes. Each reads for itself; Orbax isn't told of
the others.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from wm_jax.distributed import processes
from wm_jax.distributed.progress import log
from wm_jax.utils.errors import UserError
from wm_jax.utils.files import identity, plain

SPARE_BYTES = 1 << 20
"""Room for what lies around the arrays."""


class DamagedCheckpoints(UserError):
    """There are checkpoints, and none of them is intact."""


class _Damage(Exception):
    """What is wrong with one checkpoint."""


class Checkpoints:
    """A folder of numbered checkpoints of one pytree of arrays, the newest few kept.

    A save is complete or absent: Orbax writes beside and renames. Saves block until they are on disk. Whoever saves, or
    restores with `mend`, holds the stage's lock; anybody may read. With several processes, only the first mends.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = folder.absolute()
        self.keep = keep

    def save(self, step: int, tree: Any, about: dict[str, Any] | None = None) -> str:
        """Write `tree` (arrays and random keys) with a JSON-able record; returns its digest. Process 0 writes.

        Raises:
          OSError: there is no room for it; nothing was written.
        """
        tree = jax.tree.map(np.asarray, jax.device_get(keys_as_numbers(tree)))
        digest = digest_of(tree)
        if not processes.is_main_process():
            return digest
        self._check_room(sum(leaf.nbytes for leaf in jax.tree.leaves(tree)))
        if step in self.steps():  # Orbax never overwrites: a stage was stopped just after this very save
            self._set_aside(step)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self.keep,
            create=False,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
            multiprocessing_options=_alone(),
        )
        # One for every save, in some ten milliseconds: it has threads, which nobody else would end.
        with ocp.CheckpointManager(self.folder, options=options) as writer:
            writer.save(
                step,
                args=ocp.args.Composite(
                    tree=ocp.args.StandardSave(tree),
                    about=ocp.args.JsonSave({"digest": digest, "layout": layout_of(tree), **plain(about or {})}),
                ),
                force=True,
            )
        return digest

    def restore(self, template: Any, *, mend: bool = False) -> "tuple[int, Any, dict[str, Any]] | None":
        """The newest intact checkpoint as (step, tree of NumPy arrays and keys like `template`, record), or None.

        Args:
          template: a pytree of arrays and random keys of the same structure, shapes and types.
          mend: move damaged checkpoints out of the way, once an intact one before them was found.

        Raises:
          DamagedCheckpoints: there are checkpoints, and none of them is intact.
          UserError: they hold other arrays than the template.
          OSError: they can't be read, which says nothing about whether they are intact.
        """
        damaged = []
        steps = self.steps()
        for step in reversed(steps):
            try:
                tree, about = self._read(step, template)
            except _Damage as error:
                damaged.append(step)
                log(f"checkpoint {step} in {self.folder} is damaged ({error}): passed over")
                continue
            for each in damaged if mend and processes.is_main_process() else []:
                log(f"moved it to {self._set_aside(each)}")
            return step, tree, about
        if steps:
            raise DamagedCheckpoints(f"no checkpoint in {self.folder} is intact")
        return None

    def holds(self, digest: str, template: Any) -> bool:
        """Is the newest checkpoint intact, and of this digest? `template` is as for `restore`."""
        try:
            found = self.restore(template)
        except DamagedCheckpoints:
            return False
        return found is not None and found[2]["digest"] == digest

    def about(self) -> dict[str, Any] | None:
        """The record of the newest checkpoint, without reading its arrays.

        Raises:
          DamagedCheckpoints: that record is damaged.
        """
        steps = self.steps()
        if not steps:
            return None
        try:
            return self._about(steps[-1])
        except _Damage as error:
            raise DamagedCheckpoints(f"checkpoint {steps[-1]} in {self.folder} is damaged ({error})") from None

    def steps(self) -> list[int]:
        """Step numbers of the finished checkpoints, oldest first."""
        if not self.folder.exists():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())

    def _about(self, step: int) -> dict[str, Any]:
        """The record of one checkpoint."""
        with _damage_named(), ocp.Checkpointer(ocp.JsonCheckpointHandler(), multiprocessing_options=_alone()) as reader:
            about = reader.restore(self.folder / str(step) / "about")
            if not isinstance(about, dict) or not {"digest", "layout"} <= set(about):
                raise ValueError("its record says nothing of its content")
            return about

    def _read(self, step: int, template: Any) -> tuple[Any, dict[str, Any]]:
        """One checkpoint, compared with its digest."""
        about = self._about(step)
        numbers = keys_as_numbers(template)
        shapes = jax.tree.map(lambda leaf: np.empty(np.shape(leaf), leaf.dtype), numbers)
        require_layout(self.folder, about, shapes)
        with _damage_named(), ocp.StandardCheckpointer(multiprocessing_options=_alone()) as reader:
            tree = jax.tree.map(np.asarray, reader.restore(self.folder / str(step) / "tree", shapes))
        if digest_of(tree) != about["digest"]:
            raise _Damage("its content does not match its digest")
        return jax.tree.map(like, template, tree), about

    def _set_aside(self, step: int) -> Path:
        """Move a checkpoint out of the way, into a folder that no manager looks at."""
        target = self.folder.parent / f"{self.folder.name}-replaced" / f"{step}-{time.time_ns()}"
        target.parent.mkdir(exist_ok=True)
        shutil.move(self.folder / str(step), target)
        return target

    def _check_room(self, size: int) -> None:
        """Looked at beforehand: on a full disk Orbax's threads end in a heap of tracebacks."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self.folder).free < size + SPARE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))


def _alone() -> ocp.options.MultiprocessingOptions:
    """Have Orbax work in this process without waiting for the others."""
    return ocp.options.MultiprocessingOptions(
        primary_host=processes.index(),
        active_processes={processes.index()},
        barrier_sync_key_prefix=f"process{processes.index()}",
    )


@contextlib.contextmanager
def _damage_named() -> Iterator[None]:
    """Turn what Orbax raises over damaged content into `_Damage`; what else goes wrong in reading stays what it is."""
    try:
        yield
    except (ValueError, KeyError, FileNotFoundError, NotADirectoryError) as error:
        raise _Damage(str(error).split("\n")[0]) from None


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def keys_as_numbers(tree: Any) -> Any:
    """Random keys, which only JAX can hold, as the numbers that they are made of."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def like(leaf: Any, numbers: np.ndarray) -> Any:
    """What was read, as a random key where that was written."""
    return jax.random.wrap_key_data(jnp.asarray(numbers), impl=jax.random.key_impl(leaf)) if _is_key(leaf) else numbers


def layout_of(tree: Any) -> str:
    """A digest of names, shapes and types of all arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return identity([[jax.tree_util.keystr(path), list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves])


def require_layout(folder: Path, about: dict[str, Any], tree: Any) -> None:
    """See that what lies in a folder has the layout of a tree.

    Args:
      about: the record of what lies there.
      tree: a pytree of arrays, whatever their content.

    Raises:
      UserError: it holds other arrays.
    """
    if about["layout"] != layout_of(tree):
        raise UserError(
            f"{folder} holds arrays of other sizes or names: it was made with other settings, "
            "or by another version of this program"
        )


def digest_of(tree: Any) -> str:
    """A digest of the content: names, shapes, types and bytes of all arrays."""
    digest = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)}{array.shape}{array.dtype}".encode())
        # As bytes: NumPy lends no buffer of types that it doesn't know itself, such as bfloat16.
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
