# Imports the entry as its server will, and says whether it is an ASGI or a WSGI application.
#   NONCE MODULE ATTRIBUTE
# What is imported here must be Python's own, whatever the app names its modules.
import sys

sys.path[:] = [place for place in sys.path if place != ""]

import functools
import importlib
import inspect
import json
import os
import traceback

nonce, module_name, attribute = sys.argv[1:]
sys.argv[:] = [module_name]
sys.path.insert(0, os.getcwd())
# The answer goes where standard output went; what the app prints, to standard error.
answers = os.dup(1)
os.dup2(2, 1)


def answer(**said):
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    os.write(answers, ("\n%s %s\n" % (nonce, json.dumps(said))).encode())
    # Threads and exit handlers of the app are not waited for.
    os._exit(0)


def show(error):
    """The traceback, from the app's first frame on."""
    frame = error.__traceback__
    own = ("<string>", importlib.__file__)
    while frame is not None:
        name = frame.tb_frame.f_code.co_filename
        if name not in own and not name.startswith("<frozen importlib"):
            break
        frame = frame.tb_next
    traceback.print_exception(type(error), error, frame)


def is_async(function):
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function)


def positional(function):
    """The fewest and the most arguments that it takes by position, with their names; None: it does not say."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    taken = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    most = 1000 if any(p.kind == p.VAR_POSITIONAL for p in parameters) else len(taken)
    return len([p for p in taken if p.default is p.empty]), most, [p.name for p in taken]


def interface(app):
    if inspect.isclass(app):
        # An instance is made for each request: of (scope, receive, send), then awaited; or of (environ, start_response).
        return "asgi" if hasattr(app, "__await__") else "wsgi"
    call = getattr(app, "__call__", None)
    if is_async(app) or is_async(call) or is_async(inspect.unwrap(app)):
        return "asgi"
    said = positional(app)
    if said is None:
        return "wsgi"
    fewest, most, names = said
    if names[:3] == ["scope", "receive", "send"]:
        return "asgi"
    if fewest <= 2 <= most:
        return "wsgi"
    if fewest <= 3 <= most:
        return "asgi"
    return None


try:
    module = importlib.import_module(module_name)
except BaseException as error:
    show(error)
    gone = isinstance(error, ModuleNotFoundError) and error.name is not None
    of_entry = gone and (module_name + ".").startswith(error.name + ".")
    answer(error="module" if of_entry else "import", missing=error.name if gone else None)

app = module
for name in attribute.split("."):
    try:
        app = getattr(app, name)
    except AttributeError:
        like = [
            name
            for name, value in sorted(vars(module).items())
            if not name.startswith("_") and callable(value) and not inspect.isclass(value)
            and not inspect.isroutine(value)
        ]
        answer(error="attribute", missing=name, there=like[:5])
    except BaseException as error:
        show(error)
        answer(error="import", missing=None)
if not callable(app):
    answer(error="callable", there=type(app).__name__)
try:
    found = interface(app)
except BaseException as error:
    show(error)
    answer(error="import", missing=None)
if found is None:
    fewest, most, _ = positional(app)
    answer(error="factory" if most == 0 or fewest == 0 else "arguments", there=type(app).__name__)
answer(interface=found)
