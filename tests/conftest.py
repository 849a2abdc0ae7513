"""Strict JAX on the CPU for every test; here, before anything imports JAX."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"

from wm_jax import process

process.prepare()
