"""Who is compared, in which set-up, and how each is started. The configurations are conf/PEER-SETUP.*"""

import enum
import os
from dataclasses import dataclass

from material import HERE, PROJECT, filled


class Peer(enum.Enum):
    RELAY = "relay"
    NGINX = "nginx"
    HAPROXY = "haproxy"
    ENVOY = "envoy"
    CADDY = "caddy"
    PASSERELLE = "passerelle"


class SetUp(enum.Enum):
    PLAIN = "plain"
    GUARDED = "guarded"
    EVERYTHING = "everything"
    START = "start"
    RELOAD = "reload"


SUFFIX = {Peer.NGINX: "conf", Peer.HAPROXY: "cfg", Peer.ENVOY: "yaml", Peer.CADDY: "caddyfile", Peer.PASSERELLE: "toml"}


@dataclass(frozen=True)
class Contestant:
    """A row of a table."""

    peer: Peer
    set_up: SetUp = SetUp.PLAIN
    workers: int = 1
    label: str = ""

    @property
    def name(self):
        return self.label or self.peer.value


@dataclass(frozen=True)
class Ports:
    proxy: int
    tls: int
    admin: int
    origin: int


def configure(contestant, work, ports, generation=1):
    """Writes the contestant's configuration, or says where it lies: a path beneath work/conf. None for the relay."""
    if contestant.peer is Peer.RELAY:
        return None
    name = f"{contestant.peer.value}-{contestant.set_up.value}.{SUFFIX[contestant.peer]}"
    return write_configuration(name, work, ports, contestant.workers, generation)


def write_configuration(name, work, ports, workers=1, generation=1):
    values = {
        "WORK": work,
        "CONF": HERE / "conf",
        "PROJECT": PROJECT,
        "WORKERS": workers,
        "GENERATION": generation,
        "PORT": ports.proxy,
        "TLS_PORT": ports.tls,
        "ADMIN_PORT": ports.admin,
        "ORIGIN_PORT": ports.origin,
    }
    path = work / "conf" / name
    path.write_text(filled((HERE / "conf" / name).read_text(), values))
    return path


def nginx_command(program, configuration):
    # Its workers would be nobody's otherwise, who may not read what lies beneath root's home.
    as_root = ["-g", "user root;"] if os.geteuid() == 0 else []
    return [program, "-e", "stderr", "-c", configuration, *as_root]


def command(contestant, program, configuration, ports):
    match contestant.peer:
        case Peer.RELAY:
            return [program, ports.proxy, ports.origin]
        case Peer.NGINX:
            return nginx_command(program, configuration)
        case Peer.HAPROXY:
            return [program, "-db", "-f", configuration]
        case Peer.ENVOY:
            return [
                program,
                "--concurrency",
                contestant.workers,
                "-l",
                "error",
                "--disable-hot-restart",
                "-c",
                configuration,
            ]
        case Peer.CADDY:
            return [program, "run", "--config", configuration, "--adapter", "caddyfile"]
        case Peer.PASSERELLE:
            return [program, "run", "--config", configuration]
    raise AssertionError(contestant.peer)


def environment(contestant, program, work):
    values = program.environment()
    if contestant.peer is Peer.CADDY:
        values.update(
            GOMAXPROCS=str(contestant.workers), XDG_DATA_HOME=str(work / "run"), XDG_CONFIG_HOME=str(work / "run")
        )
    return values
