"""Whether a board is of a profile's kind, and the state during a run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgekd.board.agent.state import read_state
from edgekd.board.measuring.agent_lines import RawState
from edgekd.board.measuring.facts import matches_profile, throttle_sample
from edgekd.core.board_output import parse_power_mode
from edgekd.records import Match

LOCAL = SimpleNamespace(is_local=True, name="local")
REMOTE = SimpleNamespace(is_local=False, name="pi@host")
PI4 = Match(device_tree_models=("Raspberry Pi 4 Model B",), ram_mib_min=900, ram_mib_max=8192)


def profile(match):
    return SimpleNamespace(name="rpi4", title="Raspberry Pi 4", match=match)


@pytest.mark.parametrize(
    ("match", "session", "facts", "expected", "reason"),
    [
        (Match(this_machine=True), LOCAL, {}, True, ""),
        (Match(this_machine=True), REMOTE, {}, False, "another"),
        (
            PI4,
            REMOTE,
            {"device_tree_model": "Raspberry Pi 4 Model B Rev 1.4", "ram_bytes": 4 * 2**30 - 10**8},
            True,
            "",
        ),
        (PI4, LOCAL, {"device_tree_model": "Raspberry Pi 4 Model B Rev 1.4", "ram_bytes": 4 * 2**30}, True, ""),
        (PI4, REMOTE, {"device_tree_model": "Raspberry Pi 5 Model B Rev 1.0", "ram_bytes": 4 * 2**30}, False, "Pi 5"),
        (PI4, REMOTE, {"device_tree_model": "Raspberry Pi 4 Model B", "ram_bytes": 2**39}, False, "MiB of RAM"),
        (
            PI4,
            REMOTE,
            {"device_tree_model": "Raspberry Pi 4 Model B", "ram_bytes": None},
            False,
            "does not tell its RAM",
        ),
        (PI4, LOCAL, {"device_tree_model": None}, False, "no device-tree model"),
    ],
)
def test_matching(match, session, facts, expected, reason):
    matched, why = matches_profile(facts, session, profile(match))
    assert matched is expected
    assert reason in why
    assert bool(why) is not matched


def state(**changes):
    values = {
        "at_ns": 0,
        "thermal_zones": {},
        "clocks_khz": {},
        "governors": {},
        "throttle_counts": {},
        "get_throttled": None,
        "loadavg": None,
    }
    return RawState(**{**values, **changes})


def test_throttling_is_known_only_where_something_tells():
    assert throttle_sample(state(), state(), 1.0).throttled is None
    assert throttle_sample(state(get_throttled="throttled=0x4"), state(), 1.0).throttled is True
    assert throttle_sample(state(get_throttled="throttled=0x40000"), state(), 1.0).throttled is False
    before, after = state(throttle_counts={"cpu0": "5"}), state(throttle_counts={"cpu0": "6"})
    assert throttle_sample(after, before, 1.0).throttled is True
    assert throttle_sample(before, before, 1.0).throttled is False


def test_jetsons_alerts_and_over_current_events_are_throttling():
    calm = state(throttle_alerts={"cpu-throttle-alert": "0"}, overcurrent_counts={"hwmon1/oc1_event_cnt": "3"})
    assert throttle_sample(calm, calm, 1.0).throttled is False
    alert = state(throttle_alerts={"cpu-throttle-alert": "1"})
    assert throttle_sample(alert, alert, 1.0).throttled is True
    event = state(throttle_alerts={"cpu-throttle-alert": "0"}, overcurrent_counts={"hwmon1/oc1_event_cnt": "4"})
    assert throttle_sample(event, calm, 1.0).throttled is True


def test_a_jetsons_alerts_are_read_from_its_tree(tmp_path):
    for number, (kind, value) in enumerate((("cpu-throttle-alert", 1), ("pwm-fan", 2))):
        folder = tmp_path / f"class/thermal/cooling_device{number}"
        folder.mkdir(parents=True)
        (folder / "type").write_text(f"{kind}\n")
        (folder / "cur_state").write_text(f"{value}\n")
    folder = tmp_path / "class/hwmon/hwmon2"
    folder.mkdir(parents=True)
    (folder / "oc1_event_cnt").write_text("5\n")
    raw = RawState(**read_state(tmp_path))
    assert raw.throttle_alerts == {"cpu-throttle-alert": "1"}
    assert raw.overcurrent_counts == {"hwmon2/oc1_event_cnt": "5"}
    assert throttle_sample(raw, raw, 0.0).throttled is True


def test_the_power_mode_is_its_name():
    assert parse_power_mode("NV Power Mode: MAXN_SUPER\n2\n") == "MAXN_SUPER"
    assert parse_power_mode("NVPM WARN: no mode") is None
    assert parse_power_mode(None) is None
