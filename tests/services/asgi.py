"""What the tests of HTTP/2 upstreams need of an ASGI service, under hypercorn."""

import asyncio
import json


async def body_of(receive):
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    path = scope["path"]

    async def answer(body, status=200, headers=()):
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body})

    if path == "/healthz":
        await answer(b"ok")
    elif path == "/told":
        fields = [[name.decode(), value.decode()] for name, value in scope["headers"]]
        body = b"".join([piece async for piece in body_of(receive)])
        told = {key: scope[key] for key in ("method", "path", "http_version", "scheme")}
        told.update(query=scope["query_string"].decode(), headers=fields, body=body.decode())
        await answer(json.dumps(told).encode(), headers=[(b"content-type", b"application/json")])
    elif path == "/length":
        length = 0
        async for piece in body_of(receive):
            length += len(piece)
        await answer(str(length).encode())
    elif path.startswith("/bytes/"):
        left = int(path.rpartition("/")[2])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while left > 0:
            piece = min(left, 65536)
            await send({"type": "http.response.body", "body": b"x" * piece, "more_body": True})
            left -= piece
        await send({"type": "http.response.body", "body": b""})
    elif path == "/echo":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async for piece in body_of(receive):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    elif path.startswith("/status/"):
        await answer(b"", int(path.rpartition("/")[2]))
    elif path == "/sleep":
        await asyncio.sleep(30)
        await answer(b"woke")
    else:
        await answer(b"no such path", 404)
