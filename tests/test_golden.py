"""CarRacing, V's loss and M's loss beside figures that were written down once (`tests/golden/make.py` makes them anew).

Tolerances are for float32 on any processor. These differ in the order of sums, in products that are fused with them,
and in the last bits of exponentials and angles. Losses' figures move by 1e-6, relatively, without fused products
(SSE4.2 alone), by the kernels in C, or when every weight is changed in its last bit. On the drive, where each step goes
on from the rounded one before, places move by 4e-5 u and speeds by 2e-5 u/s when every number is changed in its last
bit in every step.
"""

from typing import Any

import numpy as np
import pytest
from golden.make import VAE_CASES, Figures, car, memory, read, vae

from wm_jax.envs.car_racing import bodies, dynamics
from wm_jax.models.vae import gaussian

DRIFT = {"place": 1e-3, "angle": 1e-4, "speed": 1e-3, "reward": 1e-3, "picture": 2.0}
"""What is allowed to the drive: twenty times the rounding's. Rewards are tiles, nearly 3 each, which are touched in the
same step or not. The mean of 64 pixels moves by 1.6, of 255, where one at the border of the road becomes grass."""
ROUNDING = 2e-5
"""What is allowed to losses and slopes, relatively; to those along the weights by the norm."""


def drifted(found: Figures, golden: Figures) -> dict[str, float]:
    """The figures of the drive that lie beyond what is allowed to them, and by how many times."""
    apart = {name: float(np.abs(found[name] - golden[name]).max()) / DRIFT[name] for name in found}
    return {name: times for name, times in apart.items() if not times <= 1}


def wrong(found: Figures, golden: Figures) -> dict[str, float]:
    """The same for those of a loss."""
    scales = {name: abs(golden[name.replace("along", "norm")]) for name in found}
    apart = {name: abs(found[name] - golden[name]) / (ROUNDING * scales[name]) for name in found}
    return {name: times for name, times in apart.items() if not times <= 1}


def test_a_drive_is_what_it_was() -> None:
    found, golden = car(), read("car")
    assert found.keys() == golden.keys() == DRIFT.keys()
    assert drifted(found, golden) == {}
    assert golden["speed"].max() > 40 and golden["reward"][-1] > 20, "it drives, and meets tiles"


@pytest.mark.parametrize(("module", "number"), [(dynamics, "ROAD_GRIP"), (bodies, "HULL_INERTIA")])
def test_one_per_cent_of_friction_or_inertia_is_noticed(
    module: Any, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, number, 1.01 * getattr(module, number))
    beyond = drifted(car(pictures=False), read("car"))
    assert min(beyond[name] for name in ("place", "angle", "speed")) > 10


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("case", VAE_CASES)
def test_the_loss_and_slopes_of_v_are_what_they_were(case: str, fast: bool) -> None:
    found, golden = vae(case, fast), read("vae")[case]
    assert found.keys() == golden.keys()
    assert wrong(found, golden) == {}


@pytest.mark.parametrize(("case", "fast"), [("lstm", False), ("lstm", True), ("gru", False)])
def test_the_loss_and_slopes_of_m_are_what_they_were(case: str, fast: bool) -> None:
    found, golden = memory(case, fast), read("memory")[case]
    assert found.keys() == golden.keys()
    assert wrong(found, golden) == {}


def test_one_per_cent_of_beta_or_a_sign_in_the_kl_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    golden, slopes = read("vae")["plain"], {"norm mean.kernel", "norm log_var.kernel", "along encoder.kernels.3"}
    beyond = wrong(vae("plain", True, beta=2.02), golden)
    assert {"loss", "penalty", *slopes} <= beyond.keys() and not {"kl", "reconstruction"} & beyond.keys()
    kl = gaussian.kl_to_standard_normal
    monkeypatch.setattr(gaussian, "kl_to_standard_normal", lambda each: kl(each._replace(log_var=-each.log_var)))
    assert {"loss", "penalty", "kl", *slopes} <= wrong(vae("plain", True), golden).keys()


def test_one_per_cent_of_the_weight_of_an_end_is_noticed() -> None:
    beyond = wrong(memory("lstm", True, done_weight=10.1), read("memory")["lstm"])
    assert {"loss", "done", "norm kernel", "norm cell.wx"} <= beyond.keys() and not {"nll", "reward"} & beyond.keys()
