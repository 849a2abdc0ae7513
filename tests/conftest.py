"""Strict JAX on the CPU and checked signatures for every test; here, before anything imports JAX or the package."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"

from jaxtyping import install_import_hook

from wm_jax import process

process.prepare()
install_import_hook(
    ["wm_jax.kernels", "wm_jax.models", "wm_jax.data.sequences", "wm_jax.envs.car_racing"], "checking.checked"
)
