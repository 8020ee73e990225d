"""What runs are made of: small C programs, a certificate, a key and tokens of many users, configurations, ports.

Everything is made beneath a directory that the caller names, and made again when what it is made from is newer.
"""

import base64
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent

# How long tokens hold, and how old they may grow before others are made.
TOKEN_LIFE = 30 * 86400
TOKEN_AGE = 7 * 86400


class Trouble(Exception):
    """What went wrong and what to do about it, for whoever runs this."""


def call(*words, **options):
    """Runs a command to its end and returns what it printed."""
    words = [str(word) for word in words]
    try:
        done = subprocess.run(words, capture_output=True, text=True, **options)
    except FileNotFoundError:
        raise Trouble(f"`{words[0]}` is missing: please install it") from None
    if done.returncode:
        raise Trouble(f"this failed with {done.returncode}: {' '.join(words)}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def compiled(work, name):
    """The program that NAME.c of this directory is."""
    source, program = HERE / f"{name}.c", work / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        call("cc", "-std=gnu11", "-O2", "-o", program, source)
    return program


def make_certificate(work):
    """cert.pem, key.pem and, in one file, both.pem: P-256, for localhost."""
    if (work / "both.pem").exists() and time.time() - (work / "both.pem").stat().st_mtime < 300 * 86400:
        return
    call(
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "365",
        "-keyout",
        work / "key.pem",
        "-out",
        work / "cert.pem",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
    )
    (work / "both.pem").write_text((work / "cert.pem").read_text() + (work / "key.pem").read_text())


def make_tokens(work, count):
    """tokens.txt: RS256 tokens of `count` users, one a line; jwks.json and jwt.pub: the key that verifies them."""
    tokens = work / "tokens.txt"
    fresh = tokens.exists() and time.time() - tokens.stat().st_mtime < TOKEN_AGE
    if fresh and len(tokens.read_text().splitlines()) == count:
        return
    if count > 500:
        print(f"signing the tokens of {count} users; this takes half a minute, once a week", file=sys.stderr)
    key, now = work / "jwt.pem", int(time.time())
    call("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key)
    (work / "jwt.pub").write_text(call("openssl", "pkey", "-in", key, "-pubout"))
    sign, modulus, exponent = signer(key)
    public = {
        "kty": "RSA",
        "alg": "RS256",
        "use": "sig",
        "kid": "k1",
        "n": in_base64(modulus),
        "e": in_base64(exponent),
    }
    (work / "jwks.json").write_text(json.dumps({"keys": [public]}))
    head = encoded({"alg": "RS256", "typ": "JWT", "kid": "k1"})
    lines = []
    for user in range(count):
        claims = {
            "iss": "https://idp.example",
            "aud": "orders",
            "sub": f"user{user:05}",
            "roles": ["reader"],
            "iat": now,
            "exp": now + TOKEN_LIFE,
        }
        signed = f"{head}.{encoded(claims)}"
        lines.append(f"{signed}.{base64.urlsafe_b64encode(sign(signed.encode())).rstrip(b'=').decode()}\n")
    tokens.write_text("".join(lines))


def signer(key):
    """A function that signs (RSASSA-PKCS1-v1_5 with SHA-256), and the public key's two numbers.

    Only for measuring: Python's arithmetic leaks the key to whoever can time it.
    """
    text = call("openssl", "rsa", "-in", key, "-noout", "-text")
    number = lambda name: int(re.sub(r"[\s:]", "", re.search(rf"{name}:\s+([0-9a-f:\s]+?)\n\S", text + "\n.")[1]), 16)
    modulus, exponent = number("modulus"), int(re.search(r"publicExponent: (\d+)", text)[1])
    p, q, dp, dq, qi = map(number, ("prime1", "prime2", "exponent1", "exponent2", "coefficient"))
    size = (modulus.bit_length() + 7) // 8
    prefix = bytes.fromhex("3031300d060960864801650304020105000420")  # DigestInfo of SHA-256

    def sign(message):
        info = prefix + hashlib.sha256(message).digest()
        padded = int.from_bytes(b"\x00\x01" + b"\xff" * (size - len(info) - 3) + b"\x00" + info, "big")
        of_p, of_q = pow(padded, dp, p), pow(padded, dq, q)
        return (of_q + (of_p - of_q) * qi % p * q).to_bytes(size, "big")

    return sign, modulus, exponent


def in_base64(number):
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()


def encoded(value):
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=").decode()


def free_ports(count):
    """Ports that nobody listens on and that the kernel gives to nobody by itself."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    found = []
    for port in range(18000, 65536):
        if first <= port <= last:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise Trouble("no free port above 18000: end whatever listens there")


def filled(template, values):
    """A configuration with its @NAMES@ replaced, and blocks between `>>> N times` and `<<<` repeated, @I@ counting."""

    def repeat(block):
        return "".join(block[2].replace("@I@", str(index)) for index in range(int(block[1])))

    text = re.sub(r"[^\n]*>>> (\d+) times[^\n]*\n(.*?)[^\n]*<<<[^\n]*\n", repeat, template, flags=re.DOTALL)
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    left = re.search(r"@[A-Z_]+@", text)
    if left:
        raise Trouble(f"a configuration asks for {left[0]}, which nothing gives")
    return text


def program_of(profile):
    """Where cargo puts the gateway that it builds with this profile."""
    return PROJECT / os.environ.get("CARGO_TARGET_DIR", "target") / profile / "passerelle"


def build(profile):
    """The gateway, built as the sources are now."""
    try:
        done = subprocess.run(["cargo", "build", "--locked", "--profile", profile, "--bin", "passerelle"], cwd=PROJECT)
    except FileNotFoundError:
        raise Trouble("Rust is missing: https://rustup.rs tells how to install it") from None
    if done.returncode:
        raise Trouble("the gateway does not build, see above")
    return program_of(profile)
