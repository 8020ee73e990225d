"""The scenarios: each has its contestants, its way to measure one of them, and the columns of its table."""

from collections.abc import Callable
from dataclasses import dataclass

import measures
from bench import USERS
from measures import IDLE_CONNECTIONS, RELOAD_RATE, STREAMS
from peers import Contestant, Peer, SetUp


@dataclass(frozen=True)
class Column:
    key: str
    title: str
    decimals: int = 0


@dataclass(frozen=True)
class Scenario:
    name: str
    about: str
    contestants: tuple[Contestant, ...]
    measure: Callable
    columns: tuple[Column, ...]
    sorted_by: str
    # Programs beside those of the contestants.
    needs: tuple[str, ...] = ("origin", "wrk")
    # Whose row `ratio` is to, by contestant: one name for all, or a function.
    ratio_to: str | Callable[[Contestant], str] | None = None
    bulk: bool = False
    # Done once before the first round.
    prepare: Callable | None = None

    def reference(self, contestant):
        return self.ratio_to(contestant) if callable(self.ratio_to) else self.ratio_to


# ---- all of them --------------------------------------------------------------------------------------------------

ALL = tuple(Contestant(peer) for peer in Peer)
WITHOUT_RELAY = tuple(Contestant(peer) for peer in Peer if peer is not Peer.RELAY)
GUARDED = (
    Contestant(Peer.RELAY),
    Contestant(Peer.NGINX, label="nginx, no policy"),
    Contestant(Peer.HAPROXY, SetUp.GUARDED),
    Contestant(Peer.ENVOY, SetUp.GUARDED, label="envoy, one limit"),
    Contestant(Peer.PASSERELLE, SetUp.GUARDED),
)
TAILS = (
    Contestant(Peer.NGINX, label="nginx, bare"),
    Contestant(Peer.PASSERELLE, SetUp.EVERYTHING, label="passerelle, everything on"),
)
START = (
    *(Contestant(peer, label=f"{peer.value}, plain") for peer in Peer if peer is not Peer.RELAY),
    Contestant(Peer.PASSERELLE, SetUp.START, label="passerelle, full"),
)
RELOAD = (Contestant(Peer.NGINX, SetUp.RELOAD), Contestant(Peer.PASSERELLE, SetUp.RELOAD))
WORKERS = tuple(
    Contestant(peer, workers=workers, label=f"{peer.value}, {workers}")
    for peer in Peer
    if peer is not Peer.RELAY
    for workers in (1, 2)
)

COST = (
    Column("rps", "requests/s"),
    Column("p50", "p50 µs"),
    Column("p99", "p99 µs"),
    Column("cost", "CPU µs/request", 2),
)
MEMORY, ERRORS = Column("memory", "memory MiB", 1), Column("errors", "errors")
LOADED = (*COST, Column("ratio", "to relay", 2), MEMORY, ERRORS)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "http1",
            "kept connections, answers of 1 KiB",
            ALL,
            measure=measures.http1,
            columns=LOADED,
            sorted_by="cost",
            ratio_to="relay",
        ),
        Scenario(
            "tls",
            "the same over TLS 1.3; the relay has plain connections",
            ALL,
            measure=measures.over_tls,
            columns=LOADED,
            sorted_by="cost",
            ratio_to="relay",
        ),
        Scenario(
            "handshake",
            "a new TLS 1.3 connection for every request",
            WITHOUT_RELAY,
            measure=measures.handshake,
            columns=(*COST, Column("ratio", "to nginx", 2), MEMORY, ERRORS),
            sorted_by="cost",
            ratio_to="nginx",
        ),
        Scenario(
            "h2",
            f"HTTP/2 over TLS 1.3, {STREAMS} streams a connection; the relay has plain connections and HTTP/1.1",
            ALL,
            measure=measures.h2,
            columns=LOADED,
            sorted_by="cost",
            needs=("origin", "wrk", "h2load"),
            ratio_to="relay",
        ),
        Scenario(
            "guarded",
            f"http1 with RS256 token, issuer, audience, expiry, role and a limit by subject; {USERS} users in turn",
            GUARDED,
            measure=measures.guarded,
            columns=LOADED,
            sorted_by="cost",
            ratio_to="relay",
        ),
        Scenario(
            "bulk",
            "answers of 1 MiB, at most 16 connections",
            ALL,
            measure=measures.bulk,
            columns=LOADED,
            sorted_by="cost",
            needs=("nginx", "wrk"),
            ratio_to="relay",
            bulk=True,
        ),
        Scenario(
            "idle",
            f"memory of each of {IDLE_CONNECTIONS} kept connections, one second after the last request",
            ALL,
            measure=measures.idle,
            columns=(Column("each", "KiB/connection", 2), MEMORY),
            sorted_by="each",
            needs=("origin",),
        ),
        Scenario(
            "tails",
            "a fixed rate below half of capacity; Passerelle with tokens, role, limits, access log and scraped metrics",
            TAILS,
            measure=measures.tails,
            columns=(
                Column("rps", "requests/s"),
                Column("p50", "p50 µs"),
                Column("p99", "p99 µs"),
                Column("p999", "p99.9 µs"),
                Column("max", "max µs"),
                Column("late", "of it load's µs"),
                Column("cost", "CPU µs/request", 2),
                ERRORS,
            ),
            sorted_by="p99",
            needs=("origin", "wrk", "pace"),
            prepare=measures.capacities,
        ),
        Scenario(
            "start",
            "from the program's start to its first answer",
            START,
            measure=measures.start,
            columns=(Column("took", "ms", 1), Column("longest", "longest ms", 1), MEMORY),
            sorted_by="took",
            needs=("origin",),
        ),
        Scenario(
            "reload",
            f"1000 routes reloaded while {RELOAD_RATE} requests a second come",
            RELOAD,
            measure=measures.reload,
            columns=(
                Column("took", "ms until seen", 1),
                Column("longest", "longest ms", 1),
                Column("stall", "slowest request ms", 1),
                Column("calm", "slowest otherwise ms", 1),
                Column("calm999", "p99.9 otherwise ms", 1),
                Column("reopened", "connections closed"),
                ERRORS,
            ),
            sorted_by="took",
            needs=("origin", "pace"),
        ),
        Scenario(
            "workers",
            "http1 with one worker and with two; proxy, load and origin share the processors where there are fewer "
            "than four",
            WORKERS,
            measure=measures.http1,
            columns=(*COST, Column("ratio", "to one", 2), MEMORY, ERRORS),
            sorted_by="cost",
            ratio_to=lambda contestant: f"{contestant.peer.value}, 1",
        ),
    )
}
