"""What an emulated board shows of itself: the CPU that QEMU plays, and the files by which a runtime chooses kernels.

Under user-mode emulation /proc/cpuinfo is the host's. LiteRT and onnxruntime crash on that, and QEMU's `max` CPU makes
XNNPACK compute wrong results without a word: so the CPU is one that really exists, and the file says the same.
"""

from __future__ import annotations

from dataclasses import dataclass

_ARMV8_0 = "fp asimd evtstrm crc32 cpuid"
_ARMV8_2 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"


@dataclass(frozen=True)
class EmulatedMachine:
    """A kind of board as QEMU can play it. Numbers of the CPU are those of its main ID register."""

    profile: str
    model: str
    cpu: str
    part: int
    variant: int
    revision: int
    features: str
    cores: int = 4

    def cpuinfo(self) -> str:
        """Its /proc/cpuinfo."""
        core = (
            "processor\t: {number}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
            "CPU architecture: 8\nCPU variant\t: 0x{variant:x}\nCPU part\t: 0x{part:x}\nCPU revision\t: {revision}\n\n"
        )
        cores = (
            core.format(
                number=number, features=self.features, variant=self.variant, part=self.part, revision=self.revision
            )
            for number in range(self.cores)
        )
        return "".join(cores) + f"Model\t\t: {self.model}\n"

    def sysfs(self) -> dict[str, str]:
        """Files under /sys, by path."""
        span = f"0-{self.cores - 1}\n"
        listed = {f"devices/system/cpu/{name}": span for name in ("possible", "present", "online")}
        topology = {
            f"devices/system/cpu/cpu{number}/topology/{name}": text
            for number in range(self.cores)
            for name, text in (("core_id", f"{number}\n"), ("physical_package_id", "0\n"), ("core_siblings_list", span))
        }
        return {**listed, **topology, "firmware/devicetree/base/model": f"{self.model} (emulated by QEMU)\0"}


MACHINES = {
    machine.profile: machine
    for machine in (
        EmulatedMachine("rpi-zero2w", "Raspberry Pi Zero 2 W Rev 1.0", "cortex-a53", 0xD03, 0, 4, _ARMV8_0),
        EmulatedMachine("rpi3", "Raspberry Pi 3 Model B Plus Rev 1.3", "cortex-a53", 0xD03, 0, 4, _ARMV8_0),
        EmulatedMachine("rpi4", "Raspberry Pi 4 Model B Rev 1.4", "cortex-a72", 0xD08, 0, 3, _ARMV8_0),
        EmulatedMachine("rpi5", "Raspberry Pi 5 Model B Rev 1.0", "cortex-a76", 0xD0B, 4, 1, _ARMV8_2),
    )
}
