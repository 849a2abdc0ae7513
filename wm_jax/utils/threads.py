"""Threads that compute as the one that they work for does."""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax

Given = TypeVar("Given")
Result = TypeVar("Result")


def with_settings_of_this_thread(work: Callable[[Given], Result]) -> Callable[[Given], Result]:
    """The same work for another thread, with the settings of JAX that hold in this one: `with jax.enable_x64(False)`
    and its like hold in one thread alone.
    """
    now: Any = jax.config
    settings: tuple[tuple[Callable[[Any], Any], Any], ...] = (
        (jax.enable_x64, now.jax_enable_x64),
        (jax.default_matmul_precision, now.jax_default_matmul_precision),
        (jax.numpy_rank_promotion, now.jax_numpy_rank_promotion),
        (jax.numpy_dtype_promotion, now.jax_numpy_dtype_promotion),
        (jax.default_device, now.jax_default_device),
    )

    def worked(given: Given) -> Result:
        with contextlib.ExitStack() as here:
            for setting, value in settings:
                here.enter_context(setting(value))
            return work(given)

    return worked
