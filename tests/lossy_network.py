"""A network that loses, delays and reorders packets, where namespaces are permitted.

The thread moves to a network namespace of its own. All that it sends to `FAR` goes through a tunnel
device to this module, which swaps the two addresses and sends it back: who connects to `FAR`
reaches what listens at `NEAR`, over TCP of the kernel, which has to send again what got lost. (The
checksums stay right: they are sums, and the two addresses are in them either way.)
"""

import ctypes
import fcntl
import heapq
import os
import select
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from random import Random
from shutil import which

import pytest

NEAR, FAR = "10.77.0.1", "10.77.0.2"
_DEVICE = "rig0"

_CLONE_NEWNET = 0x40000000
# <linux/if_tun.h>: TUNSETIFF, IFF_TUN | IFF_NO_PI.
_TUNSETIFF = 0x400454CA
_PLAIN_TUN = 0x1001
_LARGEST_PACKET = 65_536
_IPV4 = 4


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What happens to packets, those of both directions.

    `loss` is a probability. Where `jitter_s` is more than what lies between two packets, they
    overtake each other. `bytes_per_s` None is as fast as it goes.
    """

    loss: float = 0.0
    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float | None = None


CUT = Conditions(loss=1.0)


class Air:
    """Packets under way: which are lost, and when the others arrive. Without sockets or clocks."""

    def __init__(self, seed: int) -> None:
        self.conditions = Conditions()
        self.lost = 0
        self.passed = 0
        self._random = Random(seed)
        # With a number, so that packets with the same time keep their order.
        self._under_way: list[tuple[float, int, bytes]] = []
        self._free_s = 0.0

    def take(self, packet: bytes, now_s: float) -> None:
        now = self.conditions
        if self._random.random() < now.loss:
            self.lost += 1
            return
        self._free_s = max(self._free_s, now_s)
        if now.bytes_per_s is not None:
            self._free_s += len(packet) / now.bytes_per_s
        due_s = self._free_s + now.latency_s + self._random.uniform(0, now.jitter_s)
        self.passed += 1
        heapq.heappush(self._under_way, (due_s, self.passed, packet))

    def arrived(self, now_s: float) -> list[bytes]:
        packets = []
        while self._under_way and self._under_way[0][0] <= now_s:
            packets.append(heapq.heappop(self._under_way)[2])
        return packets

    def next_s(self) -> float | None:
        """Return when the next packet arrives, None if none is under way."""
        return self._under_way[0][0] if self._under_way else None


def mirrored(packet: bytes) -> bytes:
    """Return an IPv4 packet with its two addresses swapped."""
    return packet[:12] + packet[16:20] + packet[12:16] + packet[20:]


@contextmanager
def lossy_network(seed: int) -> Iterator[Air]:
    """Move this thread to a namespace with such a network, and back; skip where that is refused."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        ip = which("ip")
        if ip is None:
            pytest.skip("needs the command ip")
        if libc.unshare(_CLONE_NEWNET):
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            with _mirror(ip, seed) as air:
                yield air
        finally:
            assert libc.setns(home, _CLONE_NEWNET) == 0
    finally:
        os.close(home)


@contextmanager
def _mirror(ip: str, seed: int) -> Iterator[Air]:
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("no tunnel device")
    tunnel = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    over, is_over = os.pipe()
    air = Air(seed)
    thread = threading.Thread(target=_carry, args=[tunnel, over, air], name="air")
    try:
        fcntl.ioctl(tunnel, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), _PLAIN_TUN))
        for command in (
            f"addr add {NEAR}/24 dev {_DEVICE}",
            f"link set {_DEVICE} up",
            "link set lo up",
        ):
            subprocess.run([ip, *command.split()], check=True, timeout=10)
        thread.start()
        yield air
    finally:
        os.close(is_over)
        if thread.ident is not None:
            thread.join(10)
            assert not thread.is_alive()
        os.close(over)
        os.close(tunnel)


def _carry(tunnel: int, over: int, air: Air) -> None:
    """Carry packets until `over` is at its end."""
    while True:
        due_s = air.next_s()
        wait_s = None if due_s is None else max(due_s - time.monotonic(), 0)
        ready, _, _ = select.select([tunnel, over], [], [], wait_s)
        if over in ready:
            return
        # The device may be down for a while.
        with suppress(OSError):
            if tunnel in ready:
                packet = os.read(tunnel, _LARGEST_PACKET)
                # IPv6 has packets of its own, to nobody here.
                if packet[0] >> 4 == _IPV4:
                    air.take(mirrored(packet), time.monotonic())
            for packet in air.arrived(time.monotonic()):
                os.write(tunnel, packet)
