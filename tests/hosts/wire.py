"""A long and lossy wire between two network devices, frame by frame, as a process.

    python wire.py DEVICE DEVICE DELAY_MS LOSS_PERCENT

Linux's own emulator (netem) is a module that many kernels lack.
"""

import heapq
import random
import select
import socket
import sys
import time

# linux/if_packet.h, linux/if_ether.h. Frames travel with their offload header, so that
# checksums and segments which the sender's kernel left open stay open.
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 15, 23
_ETH_P_ALL = 3
_LARGEST = 10 + 14 + 65536


def _tap(device: str) -> socket.socket:
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    tap.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    tap.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    tap.bind((device, 0))
    return tap


def carry(left: socket.socket, right: socket.socket, delay_s: float, loss: float) -> None:
    """Pass each frame on after the delay, or lose it; never returns."""
    other = {left: right, right: left}
    draw = random.Random(0)
    on_the_way: list[tuple[float, int, socket.socket, bytes]] = []
    number = 0
    while True:
        wait_s = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
        for tap in select.select([left, right], [], [], wait_s)[0]:
            frame = tap.recv(_LARGEST)
            number += 1
            if draw.random() >= loss:
                heapq.heappush(on_the_way, (time.monotonic() + delay_s, number, other[tap], frame))
        while on_the_way and on_the_way[0][0] <= time.monotonic():
            _, _, tap, frame = heapq.heappop(on_the_way)
            tap.send(frame)


def main() -> None:
    left, right = _tap(sys.argv[1]), _tap(sys.argv[2])
    print("carries", flush=True)
    carry(left, right, float(sys.argv[3]) / 1000, float(sys.argv[4]) / 100)


if __name__ == "__main__":
    main()
