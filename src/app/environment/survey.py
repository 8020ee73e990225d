# Says what is in an environment, and notes something in it first. Run by its own interpreter with -I: nothing of the app
# is on the path.
#   NONCE DIRECTORY look | forget | packages | whole | constraints
import importlib.metadata
import importlib.util
import json
import os
import sys

nonce, directory, wanted = sys.argv[1:]
note = os.path.join(directory, "passerelle-made")


def write(path, text):
    """At once or not at all, even if the power fails."""
    with open(path + ".new", "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


if wanted == "forget":
    if os.path.lexists(note):
        os.remove(note)
elif wanted == "constraints":
    lines = sorted("%s==%s\n" % (it.metadata["Name"], it.version) for it in importlib.metadata.distributions())
    write(os.path.join(directory, "passerelle-installed.txt"), "".join(lines))
elif wanted != "look":
    write(note, wanted)


def has(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


try:
    with open(note) as file:
        made = file.read(64)
except OSError:
    made = None
servers = [name for name in ("gunicorn", "uvicorn", "granian") if has(name)]
if os.access(os.path.join(os.path.dirname(sys.executable), "uwsgi"), os.X_OK):
    servers.append("uwsgi")
worker = None
if has("uvicorn_worker"):
    worker = "uvicorn_worker"
elif has("uvicorn.workers"):
    worker = "uvicorn"
said = {"version": "%d.%d.%d" % sys.version_info[:3], "made": made, "servers": servers, "worker": worker}
print("\n" + nonce, json.dumps(said), flush=True)
