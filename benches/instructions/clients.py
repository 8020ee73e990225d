"""Clients that ask for one thing after the other, always with the same bytes."""

import re
import socket
import ssl
import struct

from material import Trouble

PATIENCE = 120  # seconds; below valgrind everything takes fifty times as long


class Http1:
    """HTTP/1.1 over a kept connection. `heads`: what is sent, in turn."""

    def __init__(self, port, heads, context=None):
        self.socket = connect(port, context)
        self.heads = [head.encode() for head in heads]
        self.asked = 0

    def ask(self):
        self.socket.sendall(self.heads[self.asked % len(self.heads)])
        self.asked += 1
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += received(self.socket)
        head, body = answer.split(b"\r\n\r\n", 1)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Trouble(f"not a 200:\n{answer.decode(errors='replace')}")
        missing = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1]) - len(body)
        while missing > 0:
            missing -= len(received(self.socket))

    def close(self):
        self.socket.close()


class Http2:
    """HTTP/2 over TLS: one stream after the other, with as little as RFC 9113 allows of everything else."""

    DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
    END_STREAM, ACK, END_HEADERS = 1, 1, 4
    # RFC 7541: indexed :method GET, :scheme https, :path /; :authority, put into the dynamic table by the first request
    # and named by its place there in all others.
    FIRST = b"\x82\x87\x84\x41\x09localhost"
    OTHERS = b"\x82\x87\x84\xbe"

    def __init__(self, port, context):
        context.set_alpn_protocols(["h2"])
        self.socket = connect(port, context)
        if self.socket.selected_alpn_protocol() != "h2":
            raise Trouble("the gateway did not agree to HTTP/2")
        self.buffer = b""
        self.stream = -1
        # The connection's window is opened once and for all; each stream's is larger than an answer.
        window = frame(self.WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1 - 65535))
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(self.SETTINGS, 0, 0, b"") + window)

    def ask(self):
        self.stream += 2
        block = self.FIRST if self.stream == 1 else self.OTHERS
        self.socket.sendall(frame(self.HEADERS, self.END_STREAM | self.END_HEADERS, self.stream, block))
        body = 0
        while True:
            kind, flags, stream, payload = self.next_frame()
            if kind == self.SETTINGS and not flags & self.ACK:
                self.socket.sendall(frame(self.SETTINGS, self.ACK, 0, b""))
            elif kind == self.PING and not flags & self.ACK:
                self.socket.sendall(frame(self.PING, self.ACK, 0, payload))
            elif kind == self.HEADERS and payload[:1] != b"\x88":
                raise Trouble("an answer over HTTP/2 that does not begin with :status 200")
            elif kind == self.DATA:
                body += len(payload)
            elif kind not in (self.HEADERS, self.SETTINGS, self.PING, self.WINDOW_UPDATE):
                raise Trouble(f"the gateway sent a frame of kind {kind}: {payload!r}")
            if stream == self.stream and kind in (self.DATA, self.HEADERS) and flags & self.END_STREAM:
                break
        if not body:
            raise Trouble("an answer over HTTP/2 without a body")

    def next_frame(self):
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            self.buffer += received(self.socket)
        end = 9 + int.from_bytes(self.buffer[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", self.buffer[3:9])
        payload, self.buffer = self.buffer[9:end], self.buffer[end:]
        return kind, flags, stream & 0x7FFFFFFF, payload

    def close(self):
        self.socket.close()


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def connect(port, context):
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(plain, server_hostname="localhost") if context else plain


def trusting(certificate):
    """TLS 1.3 towards whoever has this certificate."""
    context = ssl.create_default_context(cafile=str(certificate))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def received(connection):
    try:
        got = connection.recv(65536)
    except TimeoutError:
        raise Trouble(f"no answer within {PATIENCE} seconds") from None
    if not got:
        raise Trouble("the gateway closed a connection in mid-request")
    return got
