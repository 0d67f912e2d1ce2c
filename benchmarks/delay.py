"""A TCP proxy that adds to the time of each round trip: `python -m benchmarks.delay HOST PORT SECONDS`.

A process of its own, with a thread for each direction: an event loop's timers are no finer than a millisecond.
It prints its port, and ends when its standard input does.
"""

import contextlib
import os
import socket
import sys
import threading
import time


def main() -> None:
    host, port, delay = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        server = socket.create_connection((host, port))
        for source, target, pause in ((client, server, delay), (server, client, 0.0)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_pump, args=(source, target, pause), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket, pause: float) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 20):
            if pause:
                time.sleep(pause)  # noqa: TID251  # a thread, and what it is for
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            # To close it would not do: the other thread waits for it to say something.
            end.shutdown(socket.SHUT_RDWR)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
