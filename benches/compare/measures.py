"""The ways to measure: each measures one contestant once and returns its figures."""

import json
import os
import socket
import statistics
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import load
from material import Trouble
from peers import Peer, SetUp, configure
from processes import Running

IDLE_CONNECTIONS = 5000
STREAMS = 8  # of an HTTP/2 connection
SHARE_OF_CAPACITY = 0.4  # that `tails` asks for
STARTS = 5  # of a round
RELOADS = 5  # of a round
RELOAD_RATE = 2000  # requests a second while configurations are reloaded
# Seconds after a reload whose requests count as its: the file's watcher may read the same change once more.
AFTERMATH = 1.0


# ---- as fast as they can ------------------------------------------------------------------------------------------


def costs(bench, proxy, ask):
    """Asks for a second, then for as long as a round takes, and divides the processor time by the requests."""
    ask(1)
    before = proxy.processor_ns()
    seen = ask(bench.seconds)
    spent = proxy.processor_ns() - before
    proxy.check()
    if not seen.requests:
        raise Trouble(f"{proxy.name} answered no request{proxy.last_words()}")
    return {
        "rps": seen.per_second,
        "p50": seen.p50,
        "p99": seen.p99,
        "cost": spent / 1000 / seen.requests,
        "memory": proxy.memory_kib() / 1024,
        "errors": seen.errors,
    }


def http1(bench, contestant):
    with bench.listening(contestant) as proxy:
        return costs(bench, proxy, lambda seconds: bench.wrk(f"http://127.0.0.1:{bench.ports.proxy}/", seconds=seconds))


def over_tls(bench, contestant, *extra):
    """The relay is given plain connections: it is the same yardstick in every scenario."""
    if contestant.peer is Peer.RELAY:
        return http1(bench, contestant)
    with bench.listening(contestant, bench.ports.tls) as proxy:
        url = f"https://127.0.0.1:{bench.ports.tls}/"
        return costs(bench, proxy, lambda seconds: bench.wrk(url, *extra, seconds=seconds))


def handshake(bench, contestant):
    return over_tls(bench, contestant, "-H", "Connection: close")


def h2(bench, contestant):
    if contestant.peer is Peer.RELAY:
        return http1(bench, contestant)
    url, connections = f"https://127.0.0.1:{bench.ports.tls}/", max(1, bench.connections // STREAMS)
    with bench.listening(contestant, bench.ports.tls) as proxy:
        words = bench.programs["h2load"], bench.load_on, url, connections, STREAMS
        return costs(bench, proxy, lambda seconds: load.h2load(*words, seconds))


def guarded(bench, contestant):
    script = bench.token_script()
    with bench.listening(contestant) as proxy:
        url = f"http://127.0.0.1:{bench.ports.proxy}/orders/42"
        return costs(bench, proxy, lambda seconds: bench.wrk(url, *script, seconds=seconds))


def bulk(bench, contestant):
    fewer = replace(bench, connections=min(bench.connections, 16))
    with bench.listening(contestant) as proxy:
        url = f"http://127.0.0.1:{bench.ports.proxy}/mib"
        return costs(bench, proxy, lambda seconds: fewer.wrk(url, seconds=seconds))


# ---- memory -------------------------------------------------------------------------------------------------------


def idle(bench, contestant):
    kept = []
    with bench.listening(contestant) as proxy:
        before = proxy.memory_kib()
        try:
            for _ in range(IDLE_CONNECTIONS):
                kept.append(socket.create_connection(("127.0.0.1", bench.ports.proxy), 10))
                if ask(kept[-1], "/") is None:
                    raise Trouble(f"{proxy.name} closed connection {len(kept)} unanswered{proxy.last_words()}")
            time.sleep(1)
            after = proxy.memory_kib()
        finally:
            for connection in kept:
                connection.close()
        return {"each": (after - before) / IDLE_CONNECTIONS, "memory": after / 1024}


def ask(connection, path):
    """The body of the answer, of which the end is known by its length. None if the connection ends first."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = b""
    while True:
        head, end, body = answer.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if end and not lengths:
            raise Trouble(f"an answer without Content-Length: {head!r}")
        if end and len(body) >= int(lengths[0].split(b":")[1]):
            return body
        more = connection.recv(65536)
        if not more:
            return None
        answer += more


# ---- tails --------------------------------------------------------------------------------------------------------


def capacities(bench, contestants):
    """Sets the rate of `tails`: a share of what the slowest of them can do, so that all get the same."""
    if bench.rate is not None:
        return {}
    found = {}
    for contestant in contestants:
        with bench.listening(contestant):
            bench.wrk(tails_url(bench), *bench.token_script(), seconds=1)
            found[contestant.name] = max(1, bench.wrk(tails_url(bench), *bench.token_script(), seconds=2).per_second)
    bench.rate = round(SHARE_OF_CAPACITY * min(found.values()))
    return {"requests a second at most": {name: round(most) for name, most in found.items()}, "rate": bench.rate}


def tails_url(bench):
    return f"http://127.0.0.1:{bench.ports.proxy}/orders/42"


def tails(bench, contestant):
    with bench.listening(contestant) as proxy, scraping(bench, contestant):
        words = bench.programs["pace"], bench.load_on, bench.ports.proxy
        options = {"connections": bench.connections, "path": "/orders/42", "tokens": bench.tokens()}
        # Every token has been seen before anything is measured.
        bench.wrk(tails_url(bench), *bench.token_script(), seconds=1)
        load.pace(*words, rate=bench.rate, seconds=1, **options)
        before = proxy.processor_ns()
        seen = load.pace(*words, rate=bench.rate, seconds=bench.seconds, **options)
        spent = proxy.processor_ns() - before
        return {
            "rps": seen["answered"] / bench.seconds,
            "p50": seen["p50_us"],
            "p99": seen["p99_us"],
            "p999": seen["p999_us"],
            "max": seen["max_us"],
            "late": seen["late_us"],
            "cost": spent / 1000 / seen["answered"],
            "errors": seen["failed"] + seen["lost"],
        }


@contextmanager
def scraping(bench, contestant):
    """Takes the gateway's metrics each second, as Prometheus would."""
    over, failures = threading.Event(), []

    def scrape():
        # A scraper is elsewhere in earnest: here it must not take the processor from the load, which is measured too.
        # Hence its low priority, and no library that takes longer than the answer.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while not over.wait(1):
            try:
                with socket.create_connection(("127.0.0.1", bench.ports.admin), 5) as connection:
                    connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    if not connection.recv(1 << 20).startswith(b"HTTP/1.1 200"):
                        raise OSError("no metrics came")
                    while connection.recv(1 << 20):
                        pass
            except OSError as error:
                failures.append(error)

    thread = threading.Thread(target=scrape)
    if contestant.set_up is SetUp.EVERYTHING:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread.ident:
            thread.join()
    if failures:
        raise Trouble(f"/metrics could not be scraped: {failures[0]}")


# ---- start and reload ---------------------------------------------------------------------------------------------


def start(bench, contestant):
    """From the program's start to its first answer, each time with a new process."""
    took = []
    for _ in range(STARTS):
        with bench.running(contestant) as proxy:
            body = None
            while body is None:
                if time.monotonic() - proxy.started > 30:
                    raise Trouble(f"{proxy.name} gives no answer{proxy.last_words()}")
                try:
                    with socket.create_connection(("127.0.0.1", bench.ports.proxy), 5) as connection:
                        body = ask(connection, "/")
                except OSError:
                    proxy.check()
                    time.sleep(0.0002)
            took.append((time.monotonic() - proxy.started) * 1000)
            memory = proxy.memory_kib() / 1024
    return {"took": statistics.median(took), "longest": max(took), "memory": memory}


def reload(bench, contestant):
    """Reloads while requests come at a fixed rate: how long until a change is seen, and how slow requests get."""
    times, windows = bench.work / "run" / "pace.times", []
    with bench.listening(contestant) as proxy:
        words = bench.ports.proxy, bench.rate or RELOAD_RATE, 2 + 2 * RELOADS, bench.connections, "/service500/"
        command_line = load.pace_command(bench.programs["pace"], *words, warm_up=1, output=times)
        with Running("pace", command_line, bench.load_on, bench.work / "run" / "pace.log") as pace:
            time.sleep(2)
            for generation in range(2, 2 + RELOADS):
                configure(contestant, bench.work, bench.ports, generation)
                began = time.monotonic()
                proxy.hang_up()
                await_generation(bench, proxy, generation)
                windows.append((began, time.monotonic()))
                time.sleep(1.5)
            if pace.process.wait(60):
                raise Trouble(f"pace failed{pace.last_words()}")
            seen = json.loads(pace.log.read_text())
    during, calm = split_times(times, windows)
    return {
        "took": statistics.median(end - begin for begin, end in windows) * 1000,
        "longest": max(end - begin for begin, end in windows) * 1000,
        "stall": max(during) / 1000,
        "calm": max(calm) / 1000,
        "calm999": sorted(calm)[len(calm) * 999 // 1000] / 1000,
        "reopened": seen["reopened"],
        "errors": seen["failed"] + seen["lost"],
    }


def await_generation(bench, proxy, generation):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        proxy.check()
        try:
            with socket.create_connection(("127.0.0.1", bench.ports.proxy), 5) as connection:
                if ask(connection, "/generation") == str(generation).encode():
                    return
        except OSError:
            pass
        time.sleep(0.001)
    raise Trouble(f"{proxy.name} does not serve its new configuration{proxy.last_words()}")


def split_times(file, windows):
    """The times of requests that were due during a reload or shortly after it, and all others; in microseconds."""
    during, calm = [], []
    for line in file.read_text().splitlines():
        due, took = map(int, line.split())
        end = (due + took) / 1e6
        hit = any(due / 1e6 <= until + AFTERMATH and end >= since for since, until in windows)
        (during if hit else calm).append(took)
    if not during or not calm:
        raise Trouble("too few requests were answered to tell a reload's from others")
    return during, calm
