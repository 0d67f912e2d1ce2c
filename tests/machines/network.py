"""Machines that share nothing but networks, of which each cable can be pulled.

In the middle are two switches. Behind `store` is the database, behind `front` are the clients and the model;
a machine is plugged into both. The test itself is in the middle, with the database server: nothing of it is
to be seen from outside, and all of it can be there twice at once.
"""

from pathlib import Path
from typing import Literal, TypeAlias, get_args

from tests.machines.namespace import Namespace

Cable: TypeAlias = Literal["store", "front"]
CABLES: tuple[Cable, ...] = get_args(Cable)
_NETS = {"store": "10.77.1", "front": "10.77.2"}


class Network:
    """Raises `PermissionError` and `NetworkError`, see `Namespace`."""

    def __init__(self) -> None:
        self.middle = Namespace()
        try:
            for cable in CABLES:
                self.middle.ip(
                    f"link add name {cable} type bridge",
                    f"address add {self.address(cable)}/24 dev {cable}",
                    f"link set dev {cable} up",
                )
        except BaseException:
            self.close()
            raise

    def address(self, cable: Cable) -> str:
        """Of the middle, behind this switch."""
        return f"{_NETS[cable]}.1"

    def close(self) -> None:
        self.middle.close()


class Machine:
    """One of a network. It lasts as long as it is not closed, and processes run on it."""

    def __init__(self, network: Network, number: int, folder: Path) -> None:
        """`number`: from 1, each once at a time. `folder`: its disk."""
        self.name = f"machine{number}"
        self.folder = folder
        self._number = number
        self._middle = network.middle
        self._plugged: list[Cable] = []
        self.namespace = Namespace()
        try:
            for cable in CABLES:
                self._plug(cable)
                self._plugged.append(cable)
        except BaseException:
            self.close()
            raise

    def address(self, cable: Cable) -> str:
        return f"{_NETS[cable]}.{self._number + 1}"

    def cut(self, cable: Cable) -> None:
        """Whatever is sent is lost, in both directions, and nobody is told: no FIN, no RST, no ICMP."""
        self._middle.ip(f"link set dev {self._port(cable)} down")

    def heal(self, cable: Cable) -> None:
        self._middle.ip(f"link set dev {self._port(cable)} up")

    def part(self, other: "Machine") -> None:
        """The two do not reach each other any more, over no switch; the middle they do."""
        for machine in (self, other):
            for cable in CABLES:
                machine._middle.ip(f"link set dev {machine._port(cable)} type bridge_slave isolated on")

    def close(self) -> None:
        """Unplugged first: who is without power says nothing."""
        for cable in self._plugged:
            self._middle.ip(f"link delete dev {self._port(cable)}")
        self.namespace.close()

    def _plug(self, cable: Cable) -> None:
        port = self._port(cable)
        self._middle.ip(
            f"link add name {port} type veth peer name {cable} netns {self.namespace.path}",
            f"link set dev {port} master {cable} up",
        )
        self.namespace.ip(
            f"address add {self.address(cable)}/24 dev {cable}",
            f"link set dev {cable} up",
        )

    def _port(self, cable: Cable) -> str:
        """Of the switch, where the machine's cable ends."""
        return f"{cable}{self._number}"
