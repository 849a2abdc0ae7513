"""Which devices a stage uses, and how arrays lie on them: batches are split between them, all else is on each.

Jitted programs over arrays that lie so are partitioned by XLA, with the sums over the batch made across devices. What
a program computes does not depend on the number of devices, but for the order in which numbers are added up.

With several processes (`distributed/processes.py`) a mesh holds as many devices of each, process by process, so that
the rows of a batch that lie with a process are its `processes.share`. Arrays over such a mesh are made and looked at
with `device_put`, `local_replica` and `gather`, by all processes together.
"""

import os
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from wm_jax.config.schema import MemoryConfig
from wm_jax.config.vaes import VaeConfig
from wm_jax.distributed import processes
from wm_jax.utils.errors import UserError

AXIS = "batch"
S = TypeVar("S", bound=VaeConfig | MemoryConfig)


def started() -> list[Any]:
    """The devices that JAX shows this process, having started JAX.

    Raises:
      UserError: what JAX was told to use can't be had.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter without a word, where the plug-in is not installed
        told = os.environ.get("JAX_PLATFORMS", "")
        reason = " ".join(str(error).split(" (set JAX_PLATFORMS")[0].split()).rstrip(".") or "it is not installed"
        if told:
            raise UserError(
                f"JAX_PLATFORMS={told}: JAX can't use that here ({reason}); unset the variable to use what there is, "
                "or set it to cpu"
            ) from None
        raise UserError(f"JAX can't start ({reason}); set JAX_PLATFORMS=cpu to do without an accelerator") from None


def open_mesh(wanted: int, batch: int, option: str) -> Mesh:
    """The devices that share batches of one size, those of all processes.

    Args:
      wanted: how many, in all (0: as many of those that are there as divide the batch evenly).
      batch: its size.
      option: the setting that it comes from, for errors.

    Raises:
      UserError: there are fewer, or they can't share the batch evenly.
    """
    count = processes.count()
    found = _devices_by_process()
    least = min(len(devices) for devices in found)
    if wanted > least * count:
        where = "this machine shows JAX" if count == 1 else f"{count} processes show JAX"
        raise UserError(f"devices {wanted}: {where} {least * count}; give that many at most")
    if wanted % count:
        raise UserError(f"devices {wanted}: {count} processes can't have as many each; give a multiple")
    if wanted and batch % wanted:
        raise UserError(f"devices {wanted}: {option} {batch} can't be shared out evenly; give a multiple")
    dividing = (each for each in range(1, least + 1) if batch % (each * count) == 0)
    each = wanted // count or max(dividing, default=0)
    if not each:
        raise UserError(f"{option} {batch}: {count} processes can't share it evenly; give a multiple")
    return _mesh([device for devices in found for device in devices[:each]])


def open_local_mesh(wanted: int) -> Mesh:
    """This process's own devices, for work that it shares with no other process.

    Args:
      wanted: how many, in all processes together (0: as many as there are).

    Raises:
      UserError: there are fewer.
    """
    found, count = jax.local_devices(), processes.count()
    each = -(-wanted // count)
    if each > len(found):
        raise UserError(f"devices {wanted}: process {processes.index()} shows JAX {len(found)}; give fewer")
    return _mesh(found[: each or len(found)])


def _devices_by_process() -> list[list[Any]]:
    if processes.count() == 1:
        return [jax.local_devices()]
    return [[device for device in jax.devices() if device.process_index == i] for i in range(processes.count())]


def _mesh(devices: list[Any]) -> Mesh:
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def without_kernels(settings: S, mesh: Mesh) -> S:
    """A network's settings for programs over this mesh: our kernels in C can't be shared by several CPU devices."""
    shared = mesh.size > 1 and jax.default_backend() == "cpu"
    return settings.model_copy(update={"fast_kernels": False}) if shared else settings


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """A share of this axis on every device."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def device_put(tree: Any, sharding: Any) -> Any:
    """Arrays onto the devices of a mesh.

    Args:
      tree: a pytree of arrays that every process has whole, or at least in its own share.
      sharding: one for all of them, or a pytree of shardings like `tree`.
    """
    shardings = jax.tree.leaves(sharding)
    if all(each.is_fully_addressable for each in shardings):
        return jax.device_put(tree, sharding)
    if isinstance(sharding, NamedSharding):
        return jax.tree.map(lambda leaf: _shard(leaf, sharding), tree)
    return jax.tree.map(_shard, tree, sharding)


def _shard(array: Any, sharding: NamedSharding) -> jax.Array:
    """What `jax.device_put` does too, but that it sends the whole array around to see that all have the same."""
    shape = np.shape(array)
    places = sharding.addressable_devices_indices_map(shape)
    shards = [jax.device_put(array[index] if shape else array, device) for device, index in places.items()]
    return jax.make_array_from_single_device_arrays(shape, sharding, shards)


def local_replica(tree: Any) -> Any:
    """Arrays that lie everywhere, as they lie on one device of this process: for work that others have no part in."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def gather(tree: Any) -> Any:
    """Arrays of which every process can see all: what is split between processes is put together."""

    def gathered(leaf: jax.Array) -> Any:
        seen = leaf.is_fully_addressable or leaf.is_fully_replicated
        return leaf if seen else multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(gathered, tree)


class RowSharing:
    """Batches of rows that have nothing to do with each other, split between devices where they divide evenly.

    Args:
      mesh: the devices; None leaves everything where it is.
    """

    def __init__(self, mesh: Mesh | None):
        self._mesh = mesh

    @staticmethod
    def of_accelerators() -> "RowSharing":
        """Between this process's accelerators, if there are several. CPU devices would only share one processor."""
        several = jax.default_backend() != "cpu" and jax.local_device_count() > 1
        return RowSharing(open_local_mesh(0) if several else None)

    def replicate(self, tree: Any) -> Any:
        """A copy on every device."""
        return tree if self._mesh is None else device_put(tree, replicated(self._mesh))

    def rows(self, tree: Any) -> Any:
        """A share of the rows (first axes, all of one length) on every device; all of them, if they don't divide."""
        if self._mesh is None or jax.tree.leaves(tree)[0].shape[0] % self._mesh.size:
            return self.replicate(tree)
        return device_put(tree, batch_sharding(self._mesh))
