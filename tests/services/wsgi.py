"""What the tests of upstreams need of a WSGI service beside the examples: it shows what reaches it, takes and gives much,
and misbehaves where it is asked to. Under any server, over any protocol.
"""

import hashlib
import json
import os
import time

from flask import Flask, Response, jsonify, request

app = Flask(__name__)


@app.get("/healthz")
def healthz():
    return "ok"


@app.get("/probed")
def probed():
    """Only for those who ask as the checks of the test do."""
    asks_rightly = request.headers.get("X-Probe") == "1" and request.host == "checks.test"
    return ("ok", 200) if asks_rightly else ("who asks?", 500)


@app.route("/environ", methods=["GET", "POST"], defaults={"rest": ""})
@app.route("/environ/<path:rest>", methods=["GET", "POST"])
def environ(rest):
    """Every variable of the request that is text, and its body."""
    texts = {key: value for key, value in request.environ.items() if isinstance(value, str)}
    return jsonify(environ=texts, body=request.get_data(as_text=True), url=request.url)


@app.route("/digest", methods=["POST", "PUT"])
def digest():
    """Reads the body piece by piece."""
    sha, length = hashlib.sha256(), 0
    while piece := request.stream.read(65536):
        sha.update(piece)
        length += len(piece)
    return jsonify(length=length, sha256=sha.hexdigest(), pid=os.getpid())


@app.post("/unread")
def unread():
    return "not read"


@app.post("/unread/<int:length>")
def unread_bytes(length):
    """So many bytes to the end of the connection, and the request's body is not looked at."""
    return Response(b"x" * 4000 for _ in range(length // 4000))


@app.get("/bytes/<int:length>")
def sized(length):
    """So many bytes, piece by piece, with a length or to the end of the connection."""
    def pieces():
        left = length
        while left > 0:
            yield b"x" * min(left, 65536)
            left -= 65536

    headers = {"Content-Length": str(length)} if "sized" in request.args else {}
    return Response(pieces(), headers=headers)


@app.get("/slowly")
def slowly():
    """Three pieces, the second and third only when a file says so."""
    until = request.args["until"]

    def pieces():
        for name in ("one", "two", "three"):
            yield f"{name}\n"
            while name != "three" and not os.path.exists(os.path.join(until, name)):
                time.sleep(0.005)

    return Response(pieces(), content_type="text/event-stream")


@app.get("/broken")
def broken():
    """States more than it sends."""
    def pieces():
        yield b"only this"
        os.kill(os.getpid(), 9)

    return Response(pieces(), headers={"Content-Length": "1000"})


@app.route("/die", methods=["GET", "POST"])
def die():
    os.kill(os.getpid(), 9)


@app.route("/status/<int:status>", methods=["GET", "POST"])
def status(status):
    return "" if status in (204, 304) else "told", status, {"X-Told": "yes"}


@app.get("/sleep/<float:seconds>")
def sleep(seconds):
    time.sleep(seconds)
    return "woke"


def echo(start_response):
    """Switches protocols, and then sends back what comes; under uWSGI alone."""
    import uwsgi

    fd = uwsgi.connection_fd()
    os.set_blocking(fd, True)
    start_response("101 Switching Protocols", [("Connection", "upgrade"), ("Upgrade", "echo")])
    yield b"switched\n"
    while data := os.read(fd, 65536):
        os.write(fd, data)


class Switching:
    """Flask knows no answer that goes on like this."""

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/echo" and environ.get("HTTP_UPGRADE") == "echo":
            return echo(start_response)
        return self.inner(environ, start_response)


app.wsgi_app = Switching(app.wsgi_app)


@app.get("/openapi.json")
def openapi():
    text = {
        "openapi": "3.1.0",
        "info": {"title": "told", "version": "1"},
        "paths": {"/bytes/{length}": {"get": {
            "parameters": [{"name": "length", "in": "path", "required": True, "schema": {"type": "integer", "maximum": 9}}],
            "responses": {"200": {"description": "so many"}},
        }}},
    }
    return Response(json.dumps(text), content_type="application/json")
