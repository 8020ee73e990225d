"""Orders: a small shop service in Flask, as a team would run it behind the gateway.

The shop's own part is `/orders`. The rest shows how the gateway treats what a service may do: answer slowly, stream,
take uploads, redirect, set cookies. `/echo` reports what arrived, which is the quickest way to see what a proxy in
front has made of a request.

Environment:
    ORDERS_DB       the SQLite file; every process of the service shares it (default: orders.db in the home directory,
                    which an app that the gateway runs has for itself)
    ORDERS_RECEIPTS the directory of receipts (default: receipts in the working directory)
    ORDERS_PROXIES  how many proxies in front may be believed about the client (default 0: none)
"""

import hashlib
import json
import os
import sqlite3
import time

from flask import Flask, Response, abort, g, jsonify, redirect, request, send_file, url_for
from werkzeug.middleware.proxy_fix import ProxyFix

DATABASE = os.environ.get("ORDERS_DB") or os.path.join(os.path.expanduser("~"), "orders.db")
RECEIPTS = os.path.abspath(os.environ.get("ORDERS_RECEIPTS", "receipts"))
PROXIES = int(os.environ.get("ORDERS_PROXIES", "0"))

app = Flask(__name__)
app.json.sort_keys = False
# The gateway sends the files that the service names: see `internal_files`.
app.config["USE_X_SENDFILE"] = True
if PROXIES:
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=PROXIES, x_proto=PROXIES, x_host=PROXIES, x_prefix=PROXIES)


# ---- the shop ----------------------------------------------------------------------------------------------------


def database():
    """The request's own connection. The table is made by whoever comes first."""
    if "database" not in g:
        g.database = sqlite3.connect(DATABASE, timeout=10)
        g.database.row_factory = sqlite3.Row
        g.database.execute(
            "create table if not exists orders (id integer primary key, item text not null, quantity integer not null)"
        )
    return g.database


@app.teardown_appcontext
def close_database(_error):
    connection = g.pop("database", None)
    if connection is not None:
        connection.close()


def read_order():
    """The order in the request's body, or a 400 that says what is wrong with it."""
    order = request.get_json(silent=True)
    if not isinstance(order, dict):
        abort(400, "the body must be a JSON object")
    item, quantity = order.get("item"), order.get("quantity", 1)
    if not isinstance(item, str) or not item.strip():
        abort(400, "item must be a text that is not empty")
    if not isinstance(quantity, int) or isinstance(quantity, bool) or not 1 <= quantity <= 1000:
        abort(400, "quantity must be a whole number from 1 to 1000")
    return item.strip(), quantity


@app.get("/orders")
def list_orders():
    limit = request.args.get("limit", default=100, type=int)
    rows = database().execute("select * from orders order by id desc limit ?", (max(0, min(limit, 1000)),))
    return jsonify([dict(row) for row in rows])


@app.post("/orders")
def create_order():
    item, quantity = read_order()
    with database() as connection:
        made = connection.execute("insert into orders (item, quantity) values (?, ?)", (item, quantity)).lastrowid
    answer = jsonify(id=made, item=item, quantity=quantity)
    answer.status_code = 201
    answer.headers["Location"] = url_for("get_order", order=made)
    return answer


@app.get("/orders/<int:order>")
def get_order(order):
    row = database().execute("select * from orders where id = ?", (order,)).fetchone()
    if row is None:
        abort(404, f"there is no order {order}")
    answer = jsonify(dict(row))
    answer.add_etag()
    return answer.make_conditional(request)


@app.get("/receipts/<name>")
def receipt(name):
    """A file that the service may deny, and that the gateway sends."""
    if request.args.get("may") != "1":
        abort(403)
    return send_file(os.path.join(RECEIPTS, name), mimetype="application/pdf", as_attachment=True)


@app.delete("/orders/<int:order>")
def delete_order(order):
    with database() as connection:
        if not connection.execute("delete from orders where id = ?", (order,)).rowcount:
            abort(404, f"there is no order {order}")
    return "", 204


@app.errorhandler(400)
@app.errorhandler(404)
def explain(error):
    return jsonify(error=error.description), error.code


@app.get("/healthz")
def healthz():
    return "ok\n", {"Content-Type": "text/plain"}


# ---- what else a service may do ------------------------------------------------------------------------------------


@app.route("/echo", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@app.route("/echo/<path:_rest>", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def echo(_rest=""):
    """What the service saw of the request. Credentials and cookies are part of it: for trying out only."""
    body = request.get_data()
    return jsonify(
        method=request.method,
        scheme=request.scheme,
        host=request.host,
        path=request.path,
        target=request.environ.get("RAW_URI"),
        root=request.root_path,
        query=request.query_string.decode("latin-1"),
        client=request.remote_addr,
        worker=os.getpid(),
        headers=[[name, value] for name, value in request.headers.items()],
        body={"length": len(body), "sha256": hashlib.sha256(body).hexdigest()},
    )


@app.get("/slow")
def slow():
    """Answers after `seconds`, holding its worker meanwhile, as a slow query would."""
    seconds = request.args.get("seconds", default=1.0, type=float)
    time.sleep(max(0.0, min(seconds, 60.0)))
    return jsonify(slept=seconds, worker=os.getpid())


@app.get("/stream")
def stream():
    """Server-sent events: `count` of them, `interval` seconds apart."""
    count = request.args.get("count", default=5, type=int)
    interval = request.args.get("interval", default=1.0, type=float)

    def events():
        for number in range(max(0, min(count, 1000))):
            if number:
                time.sleep(max(0.0, min(interval, 60.0)))
            yield f"id: {number}\ndata: {json.dumps({'number': number})}\n\n"

    return Response(events(), content_type="text/event-stream")


@app.route("/upload", methods=["POST", "PUT"])
def upload():
    """Reads the body as it comes, never holding it whole."""
    length, digest = 0, hashlib.sha256()
    while chunk := request.stream.read(65536):
        length += len(chunk)
        digest.update(chunk)
    return jsonify(length=length, sha256=digest.hexdigest())


@app.get("/download")
def download():
    """`bytes` bytes that anyone can compute again; `chunked=1` leaves their number out of the head."""
    total = max(0, min(request.args.get("bytes", default=1024, type=int), 1 << 30))
    block = bytes(index % 251 for index in range(251 * 256))

    def body():
        left = total
        while left:
            piece = block[: min(left, len(block))]
            left -= len(piece)
            yield piece

    answer = Response(body(), content_type="application/octet-stream")
    if not request.args.get("chunked"):
        answer.content_length = total
    return answer


@app.get("/old-orders")
def old_orders():
    return redirect(url_for("list_orders"), 301)


@app.get("/cookies")
def cookies():
    answer = jsonify(seen=request.cookies)
    answer.set_cookie("session", "s3cret", httponly=True, samesite="Lax")
    answer.set_cookie("theme", "dark", max_age=3600)
    return answer


@app.get("/status/<int:code>")
def status(code):
    if not 200 <= code <= 599:
        abort(400, "a status from 200 to 599")
    return ("" if code in (204, 304) else f"{code}\n"), code, {"Content-Type": "text/plain"}


@app.get("/crash")
def crash():
    """The worker dies in the middle of the request, as it does when the kernel kills it for memory."""
    os._exit(1)
