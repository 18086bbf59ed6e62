"""What stands after --board."""

from __future__ import annotations

import pytest

from edgekd.board.connection.address import Address, parse_board
from edgekd.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("local", None),
        ("raspberrypi.local", Address("raspberrypi.local")),
        ("pi@10.0.0.7", Address("10.0.0.7", "pi")),
        ("pi@host:2222", Address("host", "pi", 2222)),
        ("my_alias", Address("my_alias")),
        ("pi@[fe80::1%eth0]:22", Address("fe80::1%eth0", "pi", 22)),
        ("[::1]", Address("::1")),
        ("fe80::1", Address("fe80::1")),
    ],
)
def test_addresses(text, expected):
    assert parse_board(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "@host", "pi@", "host:", "host:0", "host:65536", "host:abc", "host:²", "a b", "-oProxyCommand=x", "pi@-x"]
    + ["[::1", "[::1]x", "[host]:1", "pi@host/path", "host\n", "a@b@c", "ho;st", "host:99999999999999"],
)
def test_malformed_addresses(text):
    with pytest.raises(ConfigurationError, match="not understood"):
        parse_board(text)
