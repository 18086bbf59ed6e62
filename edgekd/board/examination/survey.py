"""What a board says of itself to plain shell commands, in one exchange: it may have neither Python nor edgekd yet."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.board.connection.session import Session
from edgekd.errors import BoardError

SURVEY_TIMEOUT_S = 60.0
FACT_LIMIT_BYTES = 16384

# $1: root of sysfs, $2: edgekd's directory there. A command that hangs is cut off; one that fails leaves its fact out.
_FACTS = {
    "clock": "date +%s",
    "model": 'cat "$1/firmware/devicetree/base/model" || cat /proc/device-tree/model',
    "machine": "uname -m",
    "kernel": "uname -sr",
    "long_bits": "getconf LONG_BIT",
    "dpkg_architecture": "dpkg --print-architecture",
    "os_release": "cat /etc/os-release",
    "libc": "getconf GNU_LIBC_VERSION || ldd --version 2>&1 | head -n 1",
    "cpuinfo": "cat /proc/cpuinfo",
    "meminfo": "cat /proc/meminfo",
    "loadavg": "cat /proc/loadavg",
    "disk": 'd=$2; while [ -n "$d" ] && [ ! -d "$d" ]; do d=${d%/*}; done; df -Pk -- "${d:-/}"',
    # Writes, reads back and removes; a directory that it had to make goes as well.
    "write": (
        'd=$2; made=; [ -d "$d" ] || { mkdir -p -- "$d" && made=1; }; f="$d/.write-check-$$"; '
        'echo 1 2>&1 >"$f" && [ "$(cat "$f")" = 1 ] && echo writable; rm -f -- "$f"; [ -n "$made" ] && rmdir -- "$d"'
    ),
    "identity": "id",
    "sudo": "command -v sudo >/dev/null && { sudo -n true && echo passwordless || echo password; }",
    "governors": 'cat "$1"/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor | sort -u',
    "governor_writable": '[ -w "$1/devices/system/cpu/cpu0/cpufreq/scaling_governor" ] && echo yes',
    "clocks": 'cat "$1"/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq',
    "max_clocks": 'cat "$1"/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq',
    "thermal": (
        'for z in "$1"/class/thermal/thermal_zone*; do [ -r "$z/temp" ] && '
        'echo "$(cat "$z/type") $(cat "$z/temp" 2>/dev/null)"; done'
    ),
    "vcgencmd": "PATH=$PATH:/usr/bin:/opt/vc/bin; command -v vcgencmd",
    "throttled": "PATH=$PATH:/usr/bin:/opt/vc/bin; timeout 3 vcgencmd get_throttled 2>&1",
    "l4t": "cat /etc/nv_tegra_release",
    "jetpack": "dpkg-query -W -f='${Version}' nvidia-jetpack",
    "nvpmodel": "PATH=$PATH:/usr/sbin; timeout 3 nvpmodel -q",
    "hwmon": (
        'for h in "$1"/class/hwmon/hwmon*; do for f in "$h"/power*_input "$h"/curr*_input; do [ -e "$f" ] || continue; '
        'if [ -r "$f" ]; then r=readable; else r=unreadable; fi; echo "$r $(cat "$h/name") ${f##*/}"; done; done'
    ),
    "rapl": (
        'for p in "$1"/class/powercap/*; do [ -e "$p/energy_uj" ] || continue; '
        'if [ -r "$p/energy_uj" ]; then r=readable; else r=unreadable; fi; echo "$r $(cat "$p/name")"; done'
    ),
    "tools": (
        "for t in tar sha256sum mkdir mv rm cat find df date kill; do command -v $t >/dev/null || echo $t; done; echo -"
    ),
    "gzip": "command -v gzip",
    # Under user-mode emulation the interpreter is what the kernel runs; only other processes are told so.
    "executable": "readlink /proc/$$/exe",
}


# What tells an emulated board; asked alone at every deploy, which must not send the whole survey each time.
_TELLING = ("executable", "model")


@dataclass(frozen=True, slots=True)
class Survey:
    """Raw text by name; a fact that the board does not give is missing. Times are of this machine, in Unix seconds."""

    facts: dict[str, str]
    asked_at_s: float
    answered_at_s: float

    def text(self, name: str) -> str:
        """A fact without surrounding white space; empty where there is none."""
        return self.facts.get(name, "").replace("\x00", "").strip()

    def lines(self, name: str) -> list[str]:
        """A fact's lines, without empty ones."""
        return [line.strip() for line in self.text(name).splitlines() if line.strip()]


def take_survey(session: Session, names: Sequence[str] = tuple(_FACTS)) -> Survey:
    """Ask a board everything at once, or only the facts of these names.

    Raises:
        BoardError: it answers nothing of it.
    """
    token = f"edgekd-fact-{secrets.token_hex(8)}"
    asked = [
        f"echo; echo {token} {name}; ( {command} ) 2>/dev/null </dev/null | head -c {FACT_LIMIT_BYTES}"
        for name, command in _FACTS.items()
        if name in names
    ]
    script = "\n".join([*asked, "echo; exit 0"])
    began = time.time()
    root = session.sysfs
    said = session.shell(script, root, session.home, timeout_s=SURVEY_TIMEOUT_S).stdout
    facts = {}
    for part in said.split(f"{token} ")[1:]:
        name, _, text = part.partition("\n")
        if name in _FACTS and text.strip():
            facts[name] = text
    if not facts and len(names) == len(_FACTS):
        raise BoardError(f"{session.name}: it answers no command: its shell is not a POSIX one, or it is restricted")
    return Survey(facts, began, time.time())


def take_telling_survey(session: Session) -> Survey:
    """Ask only what tells an emulated board from a real one."""
    return take_survey(session, _TELLING)
