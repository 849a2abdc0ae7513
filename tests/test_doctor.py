"""The doctor: one failure hides no other, and every failure comes with its remedy."""

import json
import os
import signal

import pytest

from wm_jax.tools import doctor


def probes(*tasks: tuple[str, float, bool]):
    return tuple((task, task, seconds, "mend it", essential) for task, seconds, essential in tasks)


def test_each_probe_fails_alone(monkeypatch):
    table = probes(("training no-such-game", 60, False), ("jax", 0.0, False), ("video", 60, True))
    monkeypatch.setattr(doctor, "_PROBES", table)
    unknown, slow, video = doctor.run()[-3:]
    assert not unknown.ok and unknown.detail.startswith("UsageError: game no-such-game: no such game")
    assert not slow.ok and slow.detail == "no answer within 0 s"
    assert unknown.remedy == slow.remedy == "mend it"
    assert video.ok and video.detail.startswith("MP4 by")


def test_a_crash_is_named():
    with doctor._Probe("name", "video", 60, "mend it", True) as probe:
        os.kill(probe._child.pid, signal.SIGSEGV)
        check = probe.answer()
    assert not check.ok and check.detail == "crashed (SIGSEGV)"


@pytest.mark.parametrize(("essential", "status"), [(True, 1), (False, 0)])
def test_the_exit_status_is_for_what_is_essential(monkeypatch, capsys, essential: bool, status: int):
    monkeypatch.setattr(doctor, "_PROBES", probes(("jax", 0.0, essential)))
    assert doctor.main(["--json"]) == status
    out = capsys.readouterr().out.splitlines()
    assert "      remedy: mend it" in out
    assert {check["name"]: check["ok"] for check in json.loads(out[-1])}["jax"] is False


def test_a_version_out_of_range_is_named(monkeypatch):
    monkeypatch.setattr(
        doctor, "_requirements", lambda: ["jax<0.1", "no-such-package>=2", "numpy; python_version < '3'"]
    )
    check = doctor._packages()
    assert (
        not check.ok
        and "jax 0." in check.detail
        and "(needs <0.1), no-such-package missing (needs >=2)" in check.detail
    )


def test_platforms_that_cannot_be_had_are_named(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with doctor._Probe("JAX", "jax", 60, "", True) as probe:
        check = probe.answer()
    assert not check.ok and check.detail.startswith("UserError: JAX_PLATFORMS=cuda: JAX can't use that here")
