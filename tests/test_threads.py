"""Threads that work for another one."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax.utils.threads import with_settings_of_this_thread


def test_threads_compute_with_the_settings_of_the_one_that_they_work_for() -> None:
    def found(_: None) -> tuple[Any, ...]:
        config: Any = jax.config
        return config.jax_numpy_rank_promotion, config.jax_default_matmul_precision, (jnp.ones(1) + np.float64(1)).dtype

    with ThreadPoolExecutor(1) as worker, jax.numpy_rank_promotion("warn"), jax.default_matmul_precision("highest"):
        assert worker.submit(with_settings_of_this_thread(found), None).result() == found(None)
        assert worker.submit(found, None).result() != found(None)
