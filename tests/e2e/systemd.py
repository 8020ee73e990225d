"""Starts a command as systemd would: with listening sockets under names.

    systemd.py NAME=PORT ... -- COMMAND ARGUMENT ...
"""

import os
import socket
import sys

split = sys.argv.index("--")
names = []
sockets = []
for pair in sys.argv[1:split]:
    name, port = pair.split("=")
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", int(port)))
    listening.listen(128)
    names.append(name)
    # Out of the way of the numbers that the sockets must end up with.
    sockets.append(os.dup2(listening.fileno(), 100 + len(sockets)))
for number, descriptor in enumerate(sockets):
    os.dup2(descriptor, 3 + number, inheritable=True)
    os.close(descriptor)
os.environ["LISTEN_FDS"] = str(len(sockets))
os.environ["LISTEN_FDNAMES"] = ":".join(names)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execvp(sys.argv[split + 1], sys.argv[split + 1 :])
