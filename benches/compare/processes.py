"""Processes under measurement: started on chosen processors, with what the scheduler and the kernel say of them."""

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

from material import Trouble


class Running:
    """A process that leads a group of its own. `with` ends the group."""

    def __init__(self, name, command, processors, log, environment=None):
        self.name, self.log = name, log
        on = ",".join(str(processor) for processor in processors)
        with open(log, "wb") as output:
            self.started = time.monotonic()
            self.process = subprocess.Popen(
                ["taskset", "-c", on, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=environment,
            )
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for by, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 30)):
            try:
                os.killpg(self.pid, by)
            except ProcessLookupError:
                pass
            try:
                self.process.wait(patience)
                return
            except subprocess.TimeoutExpired:
                pass

    def hang_up(self):
        os.kill(self.pid, signal.SIGHUP)

    def last_words(self):
        lines = Path(self.log).read_text(errors="replace").splitlines()[-8:]
        return f"; the end of {self.log}:\n" + "\n".join(lines) if lines else ""

    def wait_for(self, port, patience=30):
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            self.check()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise Trouble(f"{self.name} does not listen on port {port}{self.last_words()}")

    def check(self):
        if self.process.poll() is not None:
            raise Trouble(f"{self.name} ended with {self.process.returncode}{self.last_words()}")

    def tree(self):
        """This process and all beneath it."""
        found, waiting = [], [self.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                waiting += map(int, read(children).split())
        return found

    def processor_ns(self):
        """Processor time of all threads so far, by the scheduler's own accounts. Threads that ended are not in it."""
        threads = [thread for pid in self.tree() for thread in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        return sum(int((read(thread).split() or ["0"])[0]) for thread in threads)

    def memory_kib(self):
        """What the processes have resident, what they share counted once (Pss)."""
        texts = [read(Path(f"/proc/{pid}/smaps_rollup")) for pid in self.tree()]
        return sum(int(size) for text in texts for size in re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE))


def read(path):
    try:
        return path.read_text()
    except OSError:  # it has ended
        return ""
