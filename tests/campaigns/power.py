"""Power cuts on a real file system: ext4 on a loop device, shut down so that all that was not synced is gone."""

import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

from campaigns.children import SAVE_CALLS, Death, Toll, Work, at_call, die, in_child, launch_s
from campaigns.table import Place, Row

CUTS, CUTS_IN_SAVES, SIZE_MB = 50, 50, 200
# Metadata may reach the disk before the data that it speaks of, and often does: the worst that ext4 can be set to.
OPTIONS = "loop,data=writeback,noauto_da_alloc,commit=1"
SHUTDOWN, WITHOUT_FLUSHING_THE_LOG = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN, as xfstests cuts the power


class Disk:
    """A file system of its own that can lose its power."""

    def __init__(self, folder: Path) -> None:
        self.image, self.mounted_at = folder / "disk.img", folder / "disk"
        self.mounted_at.mkdir()
        run("truncate", "-s", f"{SIZE_MB}M", str(self.image))
        run("mkfs.ext4", "-q", "-F", str(self.image))
        self.mount()

    def mount(self) -> None:
        run("mount", "-o", OPTIONS, str(self.image), str(self.mounted_at))

    def unmount(self) -> None:
        run("umount", str(self.mounted_at))

    def lose_power(self) -> None:
        descriptor = os.open(self.mounted_at, os.O_RDONLY)
        fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING_THE_LOG))
        os.close(descriptor)

    def back(self, code: int) -> int:
        """Power is there again. -> code"""
        self.unmount()
        self.mount()
        return code

    def cut_after(self, seconds: float) -> Death:
        def meanwhile(pid: int) -> None:
            time.sleep(seconds)
            os.kill(pid, signal.SIGSTOP)  # so that it trains no further without a disk
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            self.lose_power()
            os.kill(pid, signal.SIGKILL)

        return lambda work: self.back(in_child(work, meanwhile=meanwhile))

    def cut_at(self, call: int) -> Death:
        def end() -> None:
            self.lose_power()
            die()

        def death(work: Work) -> int:
            return self.back(in_child(lambda: at_call(call, end) or work()))

        return death


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def is_possible() -> bool:
    return os.geteuid() == 0 and Path("/dev/loop-control").exists() and shutil.which("mkfs.ext4") is not None


def power_cuts(place: Place, chance: random.Random) -> Row:
    """As kills, but what was not synced is gone as well; the cache of mels is on that disk too."""
    fault = "power cut (ext4 shut down, what was not synced is gone)"
    if not is_possible():
        return Row(fault, "not tried: it needs root, loop devices and mkfs.ext4", False)
    longest_s, disk, cache = launch_s(place), Disk(place.folder), os.environ["TACOTRON2_CACHE"]
    os.environ["TACOTRON2_CACHE"] = str(disk.mounted_at / "cache")
    try:
        deaths = [disk.cut_at(chance.randrange(1, 4 * SAVE_CALLS)) for _ in range(place.times(CUTS_IN_SAVES))]
        n_in_saves = len(deaths)
        deaths += [disk.cut_after(chance.uniform(0.0, longest_s)) for _ in range(place.times(CUTS))]
        chance.shuffle(deaths)
        toll = Toll(place, disk.mounted_at / "cut", deaths)
        outcome, is_kept = toll.outcome()
    finally:
        os.environ["TACOTRON2_CACHE"] = cache
        disk.unmount()
    return Row(fault, f"{toll.n} cuts ({n_in_saves} at a system call of a save), {outcome}", is_kept)
