"""Which devices a stage uses, and how arrays lie on them: batches are split between them, all else is on each.

Jitted programs over arrays that lie so are partitioned by XLA, with the sums over the batch made across devices. What
a program computes does not depend on the number of devices, but for the order in which numbers are added up.
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from wm_jax.errors import UserError

AXIS = "batch"


def open_mesh(wanted: int, batch: int, option: str) -> Mesh:
    """The devices that share batches of one size.

    Args:
      wanted: how many (0: as many of those that are there as divide the batch evenly).
      batch: its size.
      option: the setting that it comes from, for errors.

    Raises:
      UserError: there are fewer, or they can't share the batch evenly.
    """
    found = jax.devices()
    if wanted > len(found):
        raise UserError(f"--devices {wanted}: this machine shows JAX {len(found)}; give that many at most")
    if wanted and batch % wanted:
        raise UserError(f"--devices {wanted}: {option} {batch} can't be shared out evenly; give a multiple")
    count = wanted or max(count for count in range(1, len(found) + 1) if batch % count == 0)
    return Mesh(np.array(found[:count]), (AXIS,), axis_types=(AxisType.Auto,))


def everywhere(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """A share of this axis on every device."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))
