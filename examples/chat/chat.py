"""Chat: an asynchronous FastAPI service with WebSockets, server-sent events and validated bodies.

Run it with `uvicorn chat:app --proxy-headers`.
"""

import asyncio
import hashlib
import os

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel, Field

app = FastAPI(title="Chat", version="1.0.0")


class Message(BaseModel):
    author: str = Field(min_length=1, max_length=40)
    text: str = Field(min_length=1, max_length=2000)


messages: list[Message] = []


@app.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    return "ok\n"


@app.get("/messages")
async def list_messages(limit: int = 100) -> list[Message]:
    return messages[-limit:] if limit > 0 else []


@app.post("/messages", status_code=201)
async def post_message(message: Message) -> Message:
    messages.append(message)
    del messages[:-1000]
    return message


@app.api_route("/echo", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
async def echo(request: Request) -> dict:
    """What the service saw of the request."""
    length, digest = 0, hashlib.sha256()
    async for chunk in request.stream():
        length += len(chunk)
        digest.update(chunk)
    return {
        "method": request.method,
        "scheme": request.url.scheme,
        "path": request.scope["path"],
        "raw_path": request.scope["raw_path"].decode("latin-1"),
        "query": request.scope["query_string"].decode("latin-1"),
        "client": request.client.host if request.client else None,
        "worker": os.getpid(),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.raw],
        "body": {"length": length, "sha256": digest.hexdigest()},
    }


@app.get("/slow")
async def slow(seconds: float = 1.0) -> dict:
    await asyncio.sleep(max(0.0, min(seconds, 60.0)))
    return {"slept": seconds}


@app.get("/stream")
async def stream(count: int = 5, interval: float = 1.0) -> StreamingResponse:
    async def events():
        for number in range(max(0, min(count, 1000))):
            if number:
                await asyncio.sleep(max(0.0, min(interval, 60.0)))
            yield f"id: {number}\ndata: {number}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.websocket("/ws")
async def websocket(socket: WebSocket):
    """Sends every message back: text as text, bytes as bytes."""
    offered = socket.headers.get("sec-websocket-protocol", "").split(",")[0].strip() or None
    await socket.accept(subprotocol=offered)
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") == "close":
                await socket.close(code=1000, reason="as asked")
                return
            if message.get("text") is not None:
                await socket.send_text(message["text"])
            else:
                await socket.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        return


@app.websocket("/refused")
async def refused(socket: WebSocket):
    """Never accepts: the handshake is answered with 403."""
    await socket.close()
