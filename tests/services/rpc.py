"""gRPC for the tests, without generated code: `rpc.py serve` says which port it has; `rpc.py call ADDRESS CA` makes calls
through the gateway and prints what came of each, as JSON.
"""

import json
import queue
import sys
import threading
import time
from concurrent import futures

import grpc

LARGEST = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


def unary(request, context):
    context.send_initial_metadata((("x-initial", "1"),))
    metadata = dict(context.invocation_metadata())
    context.set_trailing_metadata((("x-trailing", metadata.get("x-asked", "none")), ("x-bytes-bin", b"\x00\xff")))
    return request[::-1]


def fails(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not like this: 50% ü")


def sleeps(request, context):
    time.sleep(30)
    return b""


def remaining(request, context):
    """Whether the client's deadline came along."""
    return str(context.time_remaining() is not None and context.time_remaining() < 60).encode()


def counts_up(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def breaks(request, context):
    yield b"one"
    context.abort(grpc.StatusCode.DATA_LOSS, "broke")


def adds(requests, context):
    return str(sum(int(request) for request in requests)).encode()


def echoes(requests, context):
    for request in requests:
        yield request


def hoards(requests, context):
    """Echoes, but goes on reading while nobody takes what it says."""
    read = queue.SimpleQueue()

    def reads():
        for request in requests:
            read.put(request)
        read.put(None)

    threading.Thread(target=reads, daemon=True).start()
    yield from iter(read.get, None)


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(16), options=LARGEST)
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Fails": grpc.unary_unary_rpc_method_handler(fails),
        "Sleeps": grpc.unary_unary_rpc_method_handler(sleeps),
        "Remaining": grpc.unary_unary_rpc_method_handler(remaining),
        "CountsUp": grpc.unary_stream_rpc_method_handler(counts_up),
        "Breaks": grpc.unary_stream_rpc_method_handler(breaks),
        "Adds": grpc.stream_unary_rpc_method_handler(adds),
        "Hoards": grpc.stream_stream_rpc_method_handler(hoards),
        "Echoes": grpc.stream_stream_rpc_method_handler(echoes),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
    print("port", server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


def outcome(call):
    """The code and the message that a call ended with."""
    try:
        call()
        return ["OK", ""]
    except grpc.RpcError as error:
        return [error.code().name, error.details()]


def call(address, authority):
    with open(authority, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    channel = grpc.secure_channel(address, credentials, options=LARGEST)

    def method(kind, name, service="test.Service"):
        return getattr(channel, kind)(f"/{service}/{name}")

    told = {}
    answer, made = method("unary_unary", "Unary").with_call(b"there", metadata=(("x-asked", "yes"),))
    trailing = {key: value if isinstance(value, str) else list(value) for key, value in made.trailing_metadata()}
    told["unary"] = [answer.decode(), dict(made.initial_metadata()).get("x-initial"), trailing]
    told["fails"] = outcome(lambda: method("unary_unary", "Fails")(b""))
    told["deadline"] = outcome(lambda: method("unary_unary", "Sleeps")(b"", timeout=0.3))
    told["remaining"] = method("unary_unary", "Remaining")(b"", timeout=20).decode()
    told["missing"] = outcome(lambda: method("unary_unary", "Missing")(b""))
    told["counts"] = [int(number) for number in method("unary_stream", "CountsUp")(b"1000")] == list(range(1000))
    told["breaks"] = outcome(lambda: list(method("unary_stream", "Breaks")(b"")))
    told["adds"] = method("stream_unary", "Adds")(str(number).encode() for number in range(1000)).decode()
    large = b"x" * (20 << 20)
    told["large"] = method("unary_unary", "Unary")(large) == large

    # Each message is sent only once the one before has come back.
    echoed = []

    def messages():
        for number in range(50):
            yield str(number).encode()
            while len(echoed) <= number:
                time.sleep(0.001)

    talk = method("stream_stream", "Echoes")(messages())
    for message in talk:
        echoed.append(message)
    told["talk"] = [int(message) for message in echoed] == list(range(50))

    def pauses():
        yield b"1"
        time.sleep(0.7)
        yield b"2"

    told["pauses"] = [b"".join(method("stream_stream", "Echoes")(pauses())).decode()]
    told["pauses"].append(method("stream_unary", "Adds")(pauses()).decode())

    # Many at once share a connection, or a few.
    calls = [method("unary_unary", "Unary").future(str(number).encode()) for number in range(300)]
    told["many"] = [made.result().decode()[::-1] for made in calls] == [str(number) for number in range(300)]
    told["nowhere"] = outcome(lambda: method("unary_unary", "Unary", "gone.Service")(b""))
    told["unrouted"] = outcome(lambda: method("unary_unary", "Unary", "unrouted.Service")(b""))
    print(json.dumps(told))


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else call(sys.argv[2], sys.argv[3])
