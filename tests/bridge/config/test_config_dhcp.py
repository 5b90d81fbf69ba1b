"""`address = "dhcp"` and `[tap1.dhcp]`: what is read, refused, warned of, and fixed until a restart."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from bridge.config import load
from bridge.config.into_routes import routes_from
from bridge.config.keys import changed_for_good
from bridge.config.load import Config, ConfigError, read

GATEWAY = Path("gateway.toml")
LEASED = '[tap0]\naddress = "192.168.200.2/24"\n[tap1]\naddress = "dhcp"\n'
STATIC = LEASED.replace('"dhcp"', '"192.168.1.2/24"\ngateway = "192.168.1.1"')


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No `route` folder and no list lies beside these files."""
    monkeypatch.chdir(tmp_path)


def config(text: str) -> Config:
    return read(text, GATEWAY, "replay")


def test_a_leased_address_needs_no_gateway_and_no_table() -> None:
    tap1 = config(LEASED).tap1
    assert tap1 is not None
    assert (tap1.address, tap1.is_leased, tap1.gateway) == (None, True, None)
    assert config(LEASED).leases_tap1
    assert not config(STATIC).leases_tap1


def test_every_key_of_the_client_is_read(tmp_path: Path) -> None:
    text = (
        '[tap1.dhcp]\nhostname = "gw"\nclient_id = "0x01aabb"\nvendor_class = "MSFT-5.0"\n'
        'options = { "77" = "0x0a0b", "80" = "", "125" = "text" }\nstate_file = "last.lease"\n'
    )
    tap1 = config(LEASED + text).tap1
    assert tap1 is not None
    own = tap1.dhcp
    assert (own.hostname, own.client_id, own.vendor_class) == (b"gw", b"\x01\xaa\xbb", b"MSFT-5.0")
    assert own.options == {77: b"\x0a\x0b", 80: b"", 125: b"text"}
    assert own.state_file == tmp_path / "last.lease"


def test_a_gateway_beside_a_leased_address_is_the_operators_word() -> None:
    tap1 = config(LEASED + 'gateway = "192.168.1.9"\n').tap1
    assert tap1 is not None
    assert tap1.gateway == IPv4Address("192.168.1.9")


KEYS = LEASED + "[tap1.dhcp]\n"


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        (LEASED + 'kind = "tun"\n', 4, 'tap1.address: "dhcp" asks by Ethernet frames'),
        (LEASED + 'gateway = "127.0.0.1"\n', 5, "tap1.gateway: 127.0.0.1 lies in 127.0.0.0/8"),
        (KEYS + "lease = 5\n", 6, "tap1.dhcp.lease: unknown key, known are hostname, client_id"),
        (KEYS + "hostname = 5\n", 6, "tap1.dhcp.hostname: 5 is no string"),
        (KEYS + 'hostname = "two words"\n', 6, '"two words" is no name for a server'),
        (KEYS + f'vendor_class = "{"x" * 256}"\n', 6, "is no name for a server: 1 to 255 letters"),
        (KEYS + 'client_id = "x"\n', 6, "a client identifier has at least two bytes"),
        (KEYS + 'client_id = "0xabc"\n', 6, '"0xabc" has no even number of hexadecimal digits'),
        (KEYS + f'client_id = "0x{"00" * 256}"\n', 6, "this has 256 bytes, an option has at most 255"),
        (KEYS + "options = 5\n", 6, "tap1.dhcp.options: 5 is of another type, give a table"),
        (KEYS + 'options = { "0" = "" }\n', 6, '"0" is no option\'s number, they go from "1" to "254"'),
        (KEYS + 'options = { "255" = "" }\n', 6, '"255" is no option\'s number'),
        (KEYS + 'options = { "077" = "" }\n', 6, '"077" is no option\'s number'),
        (KEYS + 'options = { "host" = "" }\n', 6, '"host" is no option\'s number'),
        (KEYS + 'options = { "61" = "me" }\n', 6, "option 61 has a key of its own, client_id: give it there"),
        (KEYS + 'options = { "12" = "me" }\n', 6, "option 12 has a key of its own, hostname"),
        (KEYS + 'options = { "60" = "me" }\n', 6, "option 60 has a key of its own, vendor_class"),
        (KEYS + 'options = { "77" = 5 }\n', 6, "tap1.dhcp.options.77: 5 is no string"),
        (
            KEYS + "options = { " + ", ".join(f'"{code}" = "{"x" * 255}"' for code in range(70, 75)) + " }\n",
            5,
            "tap1.dhcp: its values have 1275 bytes, a message has room for 1000",
        ),
        (
            LEASED
            + '[[alias.forward]]\non = "tap1"\nprotocol = "udp"\noutside_port = 68\ninside = "192.168.200.3:68"\n',
            8,
            "alias.forward[0].outside_port: udp port 68 is the DHCP client's own on tap1",
        ),
    ],
)
def test_an_error_is_told_with_its_line_and_alone(text: str, line: int, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(text)
    (message,) = caught.value.errors
    assert message.startswith(f"gateway.toml:{line}: ")
    assert told in message


@pytest.mark.parametrize("code", [50, 51, 52, 53, 54, 57, 58, 59])
def test_options_that_the_client_itself_sends_are_refused(code: int) -> None:
    with pytest.raises(ConfigError, match=f"option {code} is the client's own"):
        config(KEYS + f'options = {{ "{code}" = "0x00" }}\n')


def test_a_table_for_a_static_address_is_warned_of() -> None:
    (warning,) = config(STATIC + '[tap1.dhcp]\nhostname = "gw"\n').warnings
    assert warning.startswith('gateway.toml:6: tap1.dhcp: has no effect on a static address, say address = "dhcp"')
    assert config(KEYS).warnings == []


def test_static_arp_entries_and_forwards_need_no_subnet_of_a_leased_port() -> None:
    text = (
        '[tap1.arp]\n"10.9.9.1" = "02:aa:00:00:00:01"\n[[alias.forward]]\non = "tap1"\nprotocol = "tcp"\n'
        'outside_port = 68\ninside = "192.168.200.3:80"\n'
    )
    assert config(LEASED + text).tap1 is not None


def test_routes_know_nothing_of_tap1_before_its_lease() -> None:
    routes = routes_from(config(LEASED))
    assert {row["target"] for row in routes.summary()} == {"local", "tap0", "unreachable"}


def test_what_cannot_change_in_a_reload_is_named(tmp_path: Path) -> None:
    leased, other = config(LEASED), config(KEYS + 'hostname = "gw"\n')
    assert list(changed_for_good(leased, other)) == []
    assert list(changed_for_good(leased, config(LEASED + 'gateway = "192.168.1.9"\n'))) == []
    assert list(changed_for_good(leased, config(STATIC))) == ["tap1.address"]
    assert list(changed_for_good(config(STATIC), leased)) == ["tap1.address"]
    assert list(changed_for_good(leased, config(KEYS + 'state_file = "x"\n'))) == ["tap1.dhcp.state_file"]


def test_the_mac_address_of_a_leased_port_is_the_machines_own_but_in_a_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mac(machine: str | None, purpose: load.Purpose, text: str = LEASED) -> bytes:
        identity = tmp_path / "machine-id"
        identity.unlink(missing_ok=True)
        if machine is not None:
            identity.write_text(machine + "\n")
        monkeypatch.setattr(load, "_MACHINE_ID", identity)
        monkeypatch.setattr(load, "demand", lambda *_: None)
        tap1 = read(text, GATEWAY, purpose).tap1
        assert tap1 is not None
        assert tap1.mac[0] == 2
        return tap1.mac

    assert mac("a" * 32, "run") == mac("a" * 32, "check") != mac("b" * 32, "run")
    assert mac("a" * 32, "replay") == mac("b" * 32, "replay") == mac(None, "replay")
    assert mac(None, "run") == mac(None, "run") != mac(None, "replay")
    written = LEASED + 'mac = "02:00:00:00:01:02"\n'
    assert mac("a" * 32, "run", written) == mac("b" * 32, "replay", written)
    running, wanted = read(LEASED, GATEWAY, "run"), read(LEASED, GATEWAY, "replay")
    assert list(changed_for_good(running, wanted)) == [], "the one in use stays"
