"""What asks: wrk as fast as it can over HTTP/1.1, h2load over HTTP/2, and our own pace at a fixed rate."""

import json
import re
import subprocess
from dataclasses import dataclass

from material import Trouble

MICROSECONDS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000}


@dataclass(frozen=True)
class Load:
    """What a generator saw. Times in microseconds; None where it does not tell."""

    requests: int
    per_second: float
    p50: float | None
    p99: float | None
    errors: int


def run(program, processors, *words):
    on = ",".join(str(processor) for processor in processors)
    command = ["taskset", "-c", on, str(program.path), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=program.environment())
    if done.returncode:
        raise Trouble(f"{program.path.name} failed with {done.returncode}: {(done.stdout + done.stderr).strip()}")
    return done.stdout


def wrk(program, processors, url, connections, seconds, *extra):
    text = run(program, processors, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *extra, url)

    def counted(pattern):
        return sum(int(found) for found in re.findall(pattern, text))

    def part(percent):
        found = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s|m)\b", text)
        return float(found[1]) * MICROSECONDS[found[2]]

    failed = counted(r"Non-2xx or 3xx responses: (\d+)") + counted(r"(?:connect|read|write|timeout) (\d+)")
    per_second = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])
    return Load(counted(r"(\d+) requests in"), per_second, part(50), part(99), failed)


def h2load(program, processors, url, connections, streams, seconds):
    text = run(program, processors, "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", url)
    if "Application protocol: h2" not in text:
        raise Trouble(f"no HTTP/2 was agreed on:\n{text}")
    total, good = (
        int(re.search(pattern, text)[1]) for pattern in (r"requests: (\d+) total", r"status codes: (\d+) 2xx")
    )
    # Those under way when the time is over are in the total and not done.
    done = int(re.search(r"(\d+) done", text)[1])
    return Load(good, float(re.search(r"([\d.]+) req/s", text)[1]), None, None, min(done, total) - good)


def pace_command(program, port, rate, seconds, connections, path, warm_up=0, tokens=None, output=None):
    words = [program.path, "-p", port, "-r", rate, "-t", seconds, "-w", warm_up, "-c", connections, "-u", path]
    for option, file in (("-f", tokens), ("-o", output)):
        words += [option, file] if file else []
    return [str(word) for word in words]


def pace(program, processors, *words, **options):
    """What pace says, as a dictionary; see pace.c."""
    command = pace_command(program, *words, **options)
    said = json.loads(run(program, processors, *command[1:]))
    if not said["answered"]:
        raise Trouble(f"not one request was answered at the fixed rate: {said}")
    return said
