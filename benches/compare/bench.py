"""What all measurements of a run have in common: the work directory, the programs, the processors, how long and how much."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import load
from material import make_tokens
from peers import Ports, command, configure, environment, nginx_command, write_configuration
from processes import Running
from programs import Programs

USERS = 2000


@dataclass
class Bench:
    work: Path
    programs: Programs
    ports: Ports
    seconds: int
    connections: int
    rate: float | None = None
    proxy_on: list = field(default_factory=list)
    load_on: list = field(default_factory=list)

    def running(self, contestant, generation=1):
        """The contestant, started; `with` ends it."""
        program = self.programs[contestant.peer.value]
        configuration = configure(contestant, self.work, self.ports, generation)
        words = command(contestant, program.path, configuration, self.ports)
        log = self.work / "run" / f"{contestant.peer.value}.log"
        return Running(contestant.name, words, self.proxy_on, log, environment(contestant, program, self.work))

    @contextmanager
    def listening(self, contestant, port=None):
        with self.running(contestant) as proxy:
            proxy.wait_for(port or self.ports.proxy)
            yield proxy

    def origin(self, bulk=False):
        """The server behind the proxies, started; `with` ends it."""
        if bulk:
            program = self.programs["nginx"]
            (self.work / "bulk").mkdir(exist_ok=True)
            (self.work / "bulk" / "mib").write_bytes(bytes(range(256)) * 4096)
            words = nginx_command(program.path, write_configuration("origin-bulk.conf", self.work, self.ports))
            return Running("origin", words, self.load_on, self.work / "run" / "origin.log", program.environment())
        words = [self.programs["origin"].path, self.ports.origin, 1024]
        return Running("origin", words, self.load_on, self.work / "run" / "origin.log")

    def wrk(self, url, *extra, seconds=None):
        words = self.connections, seconds or self.seconds, *extra
        return load.wrk(self.programs["wrk"], self.load_on, url, *words)

    def tokens(self):
        make_tokens(self.work, USERS)
        return self.work / "tokens.txt"

    def token_script(self):
        """For wrk: the tokens of all users in turn."""
        script = self.work / "tokens.lua"
        script.write_text(
            f'local requests, next = {{}}, 0\nfor token in io.lines("{self.tokens()}") do\n'
            '  local fields = { Authorization = "Bearer " .. token, Host = "localhost" }\n'
            '  requests[#requests + 1] = wrk.format("GET", "/orders/42", fields)\nend\n'
            "request = function() next = next % #requests + 1; return requests[next] end\n"
        )
        return "-s", script
