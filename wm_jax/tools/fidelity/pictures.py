"""How far our pictures are from Gymnasium's: of the same car in the same place, pixel by pixel and region by region."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.envs.box2d.car_racing import CarRacing as TheirCarRacing
from numpy.typing import NDArray

from wm_jax.envs.car_racing.drawing import FRAME, OBSERVATION, picture, shot
from wm_jax.envs.car_racing.raster import ROWS_SEEN, raster
from wm_jax.envs.car_racing.track import bank
from wm_jax.envs.host.resize import shrink
from wm_jax.tools.fidelity.reference import Snapshot, Style, UndrawnCarRacing, snapshot, take_seat

Pictures = NDArray[np.uint8]

NOTICEABLE, WRONG = 8, 32
"""Levels: a pixel whose worst channel is off by more than these counts as such."""


@dataclass(frozen=True)
class Difference:
    """Of some pixels.

    share: of all pixels that these are.
    mean: absolute difference, over pixels and channels, in levels of 0..255.
    noticeable, wrong: share of pixels off by more than 8, and more than 32, levels in their worst channel.
    largest: of any channel.
    """

    share: float
    mean: float
    noticeable: float
    wrong: float
    largest: int

    @staticmethod
    def of(differences: NDArray[np.int16], chosen: NDArray[np.bool_]) -> "Difference | None":
        """From differences [..., 3] of all pixels; None if none [...] is chosen."""
        if not chosen.any():
            return None
        ours = np.abs(differences[chosen])
        worst = ours.max(-1)
        noticeable, wrong = (float((worst > bar).mean()) for bar in (NOTICEABLE, WRONG))
        return Difference(float(chosen.mean()), float(ours.mean()), noticeable, wrong, int(worst.max()))


@dataclass(frozen=True)
class Album:
    """N pictures that Gymnasium drew, and what they show.

    seeds: of the tracks, one for each picture.
    times: seconds since the tracks were made.
    states: Snapshot of N.
    observations: uint8 [N, 96, 96, 3].
    """

    seeds: tuple[int, ...]
    times: NDArray[np.float64]
    states: Snapshot
    observations: Pictures
    colourful: bool = False

    @staticmethod
    def bound(albums: Sequence["Album"]) -> "Album":
        """Several albums of one kind of colours as one."""
        states = Snapshot(*(np.concatenate(field) for field in zip(*(each.states for each in albums), strict=True)))
        seeds = tuple(seed for each in albums for seed in each.seeds)
        times, observations = (np.concatenate([getattr(a, name) for a in albums]) for name in ("times", "observations"))
        return Album(seeds, times, states, observations, albums[0].colourful)

    def only(self, chosen: NDArray[np.bool_]) -> "Album":
        """The chosen [N] pictures."""
        states = Snapshot(*(field[chosen] for field in self.states))
        seeds = tuple(seed for seed, keep in zip(self.seeds, chosen, strict=True) if keep)
        return Album(seeds, self.times[chosen], states, self.observations[chosen], self.colourful)

    @property
    def zooming(self) -> NDArray[np.bool_]:
        """[N]: those of the first second, in which the camera comes near."""
        return self.times <= 1.0

    def frames(self) -> Pictures:
        """uint8 [N, 64, 64, 3]: what V sees of Gymnasium's pictures."""
        return shrink(self.observations, (0, ROWS_SEEN, 0, OBSERVATION))

    def ours(self, width: int = FRAME, *, fast: bool = True) -> Pictures:
        """Our pictures of the same: [N, 64, 64, 3], or the upper [N, 84, 96, 3] of observations."""
        different = list(dict.fromkeys(self.seeds))
        tracks = bank(different, colourful=self.colourful)
        states = self.states
        numbers = [states.position, states.angle, states.joint_angles, states.phases, self.times]
        shots = jax.vmap(shot)(
            jnp.asarray([different.index(seed) for seed in self.seeds], jnp.int32),
            jnp.asarray(states.visited),
            *(jnp.asarray(number, jnp.float32) for number in numbers),
        )
        draw = jax.jit(jax.vmap(lambda tracks, shot: picture(tracks, shot, width, fast=fast), in_axes=(None, 0)))
        return np.asarray(draw(tracks, shots))


def photograph(
    style: Style, seeds: Sequence[int], steps: Sequence[int], *, colourful: bool = False, **options: Any
) -> Album:
    """Gymnasium's pictures of one drive on each track, after so many steps; fewer if it ends before."""
    taken = []
    for seed in seeds:
        options |= {"domain_randomize": colourful, "continuous": style != "choices"}
        with contextlib.closing(UndrawnCarRacing(**options)) as game:
            game.reset(seed=seed)
            driver = take_seat(game, style, seed)
            for step in range(max(steps) + 1):
                if step in steps:
                    taken.append((seed, game.t, snapshot(game), TheirCarRacing._render(game, "state_pixels")))
                _, _, terminated, _, _ = game.step(driver())
                if terminated:
                    break
    seen, times, states, observations = zip(*taken, strict=True)
    stacked = Snapshot(*(np.stack(field) for field in zip(*states, strict=True)))
    return Album(seen, np.array(times), stacked, np.stack(observations), colourful)


def compare(album: Album) -> dict[str, dict[str, Difference]]:
    """Our frames beside Gymnasium's: by phase (zooming, then near) and region."""
    theirs, ours = album.frames(), album.ours()
    differences = ours.astype(np.int16) - theirs
    regions = _regions(theirs)
    found: dict[str, dict[str, Difference]] = {}
    for phase, when in (("zooming", album.zooming), ("near", ~album.zooming)):
        chosen = {name: Difference.of(differences[when], mask[when]) for name, mask in regions.items()}
        found[phase] = {name: each for name, each in chosen.items() if each is not None}
    return found


def _regions(frames: Pictures) -> dict[str, NDArray[np.bool_]]:
    """Masks [N, 64, 64], by the colours that Gymnasium gives to what is whole; of pictures in the usual colours."""
    levels = frames.astype(np.int16)
    spread = levels.max(-1) - levels.min(-1)
    grass = np.any([np.abs(levels - colour).max(-1) <= 1 for colour in ((100, 202, 100), (100, 228, 100))], 0)
    road = (spread <= 1) & (levels[..., 0] >= 99) & (levels[..., 0] <= 106)
    car = np.zeros(grass.shape, bool)
    car[:, *raster(FRAME).car] = True
    curbs = (levels[..., 0] > 115) & ~car
    masks = {"all": np.ones(grass.shape, bool), "grass": grass & ~car, "road": road & ~car, "curbs": curbs, "car": car}
    return masks | {"edges": ~(grass | road | curbs | car)}


def observations_differ(album: Album) -> Difference:
    """Of Gymnasium's whole observation above the bar of instruments."""
    differences = album.ours(OBSERVATION).astype(np.int16) - album.observations[:, :ROWS_SEEN]
    difference = Difference.of(differences, np.ones(differences.shape[:-1], bool))
    assert difference is not None, "an empty album"
    return difference
