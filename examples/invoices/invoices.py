"""Invoices: a Django service in one file, with what Django is strict about: hosts, CSRF, sessions, secure redirects.

Run it with `gunicorn invoices:application`; `python invoices.py collectstatic` collects its static files.

Environment:
    INVOICES_HOSTS   ALLOWED_HOSTS, separated by commas (default: localhost,127.0.0.1)
    INVOICES_SECRET  SECRET_KEY (default: one made at start, so that sessions end with the process)
    INVOICES_STATIC  where static files are collected, for the gateway to serve (default: collected)
"""

import hashlib
import os
import secrets
import sys
from pathlib import Path
from urllib.parse import quote

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=os.environ.get("INVOICES_HOSTS", "localhost,127.0.0.1").split(","),
    SECRET_KEY=os.environ.get("INVOICES_SECRET") or secrets.token_urlsafe(48),
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    # The gateway overwrites these two, whatever a client sends.
    SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
    USE_X_FORWARDED_HOST=True,
    DATA_UPLOAD_MAX_MEMORY_SIZE=64 * 1024 * 1024,
    INSTALLED_APPS=["django.contrib.staticfiles"],
    STATIC_URL="/static/",
    STATICFILES_DIRS=[Path(__file__).parent / "static"],
    STATIC_ROOT=os.environ.get("INVOICES_STATIC", "collected"),
    # Names that hold a digest of what is in the file: such files may be cached for ever.
    STORAGES={"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"}},
)
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402  settings come first
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse  # noqa: E402
from django.templatetags.static import static  # noqa: E402
from django.middleware.csrf import get_token  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402
from django.views.decorators.http import require_GET, require_http_methods, require_POST  # noqa: E402

INVOICES = [{"number": number, "total": f"{number * 12.5:.2f}"} for number in range(1, 41)]


@require_GET
def healthz(_request):
    return HttpResponse("ok\n", content_type="text/plain")


@require_http_methods(["GET", "HEAD"])
def listing(_request):
    return JsonResponse(INVOICES, safe=False)


@require_http_methods(["GET", "HEAD"])
def detail(_request, number):
    for invoice in INVOICES:
        if invoice["number"] == number:
            return JsonResponse(invoice)
    return JsonResponse({"error": f"there is no invoice {number}"}, status=404)


@csrf_exempt
def echo(request):
    """What Django saw of the request."""
    return JsonResponse(
        {
            "method": request.method,
            "scheme": request.scheme,
            "host": request.get_host(),
            "path": request.path,
            "absolute": request.build_absolute_uri(),
            "headers": dict(request.headers),
            "body": {"length": len(request.body), "sha256": hashlib.sha256(request.body).hexdigest()},
        }
    )


@require_GET
def visit(request):
    """Counts in a signed cookie how often this browser came."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"]})


@require_GET
def token(request):
    return JsonResponse({"csrf": get_token(request)})


@require_POST
def pay(request):
    """Guarded against forgery: behind TLS, Django compares Origin or Referer with the host that it sees."""
    return JsonResponse({"paid": request.POST.get("number")})


@csrf_exempt
@require_POST
def attach(request):
    """A multipart upload."""
    attached = request.FILES["file"]
    digest = hashlib.sha256()
    for piece in attached.chunks():
        digest.update(piece)
    return JsonResponse({"name": attached.name, "length": attached.size, "sha256": digest.hexdigest()})


@require_GET
def export(_request):
    """A file made while it is sent, of a length that nobody knows beforehand."""
    lines = (f"{invoice['number']};{invoice['total']}\n" for invoice in INVOICES for _ in range(500))
    return StreamingHttpResponse(lines, content_type="text/csv")


@require_GET
def page(_request):
    """A page of which everything but itself is a static file."""
    return HttpResponse(f'<!doctype html><link rel="stylesheet" href="{static("invoices.css")}"><h1>Invoices</h1>')


@require_GET
def statement(request, name):
    """A file that the gateway sends once Django has agreed to it."""
    if request.GET.get("may") != "1":
        return HttpResponse("no\n", status=403, content_type="text/plain")
    response = HttpResponse(content_type="application/pdf")
    response["X-Accel-Redirect"] = quote(f"/protected/{name}")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response.set_cookie("seen", name.replace("/", "-"))
    return response


urlpatterns = [
    path("page", page),
    path("statements/<path:name>", statement),
    path("healthz", healthz),
    path("invoices/", listing),
    path("invoices/<int:number>/", detail),
    path("echo", echo),
    path("visit", visit),
    path("token", token),
    path("pay", pay),
    path("attach", attach),
    path("export", export),
]

application = get_wsgi_application()

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
