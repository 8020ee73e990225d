"""Shop: a FastAPI service with parameters and bodies of every kind, whose document the gateway holds requests to.

What it is sent it has judged by FastAPI itself. It counts what that refuses: behind the gateway there should be nothing.

POST /release/NAME adds an operation GET /NAME, as a new release of the service would.
"""

from enum import Enum
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Cookie, FastAPI, File, Form, Header, Path, Query, Request, Security, UploadFile
from fastapi.security import OAuth2, SecurityScopes
from pydantic import BaseModel, ConfigDict, Field

app = FastAPI(title="Shop", version="1.0.0")

refused: list[str] = []


@app.middleware("http")
async def count_refusals(request: Request, call_next):
    response = await call_next(request)
    if response.status_code in (404, 405, 415, 422) and request.headers.get("x-direct") is None:
        refused.append(f"{response.status_code} {request.method} {request.url.path}?{request.url.query}")
    return response


@app.get("/healthz", include_in_schema=False)
async def healthz():
    return "ok"


@app.get("/refused", include_in_schema=False)
async def told():
    return refused


class Colour(str, Enum):
    red = "red"
    green = "green"


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid")
    article: str = Field(min_length=1, max_length=20, pattern="^[a-z]+$")
    quantity: int = Field(ge=1, le=100)
    price: float | None = Field(default=None, gt=0, le=1e6)


class Order(BaseModel):
    customer: UUID
    lines: list[Line] = Field(min_length=1, max_length=5)
    colour: Colour = Colour.red
    note: str | None = Field(default=None, max_length=50)
    kind: Literal["gift", "plain"]
    parent: "Order | None" = None


@app.get("/articles/{article}")
async def article(
    article: Annotated[int, Path(ge=1, le=10_000)],
    limit: Annotated[int, Query(ge=1, le=50)] = 10,
    offset: int | None = None,
    colours: Annotated[list[Colour], Query(max_length=3)] = [],
    exact: Annotated[float | None, Query(gt=0, lt=10)] = None,
    x_page: Annotated[int | None, Header(ge=0)] = None,
    session: Annotated[str | None, Cookie(min_length=3, max_length=8, pattern="^[a-z]+$")] = None,
):
    return {"article": article}


@app.get("/articles/{article}/parts/{part}")
async def part(article: int, part: Colour, x_token: Annotated[str, Header(min_length=2, pattern="^[a-z0-9]+$")]):
    return {"part": part}


@app.post("/orders", status_code=201)
async def order(order: Order):
    return {}


@app.put("/orders/{order}")
async def change(order: UUID, lines: Annotated[list[Line], Field(max_length=3)], dry: Literal["yes", "no"] = "no"):
    return {}


@app.post("/login")
async def login(
    name: Annotated[str, Form(min_length=1, max_length=10)],
    age: Annotated[int, Form(ge=18)],
    tags: Annotated[list[Colour], Form()] = [],
):
    return {}


@app.post("/photos")
async def photo(title: Annotated[str, Form(min_length=1)], photo: Annotated[UploadFile, File()]):
    return {"size": photo.size}


scheme = OAuth2(flows={"clientCredentials": {"tokenUrl": "/token", "scopes": {"audit:read": "Audit"}}}, auto_error=False)


@app.get("/audit")
async def audit(scopes: SecurityScopes, token: Annotated[str | None, Security(scheme, scopes=["audit:read"])]):
    return {}


@app.post("/release/{name}", include_in_schema=False)
async def release(name: str):
    async def released():
        return {}

    app.get(f"/{name}")(released)
    app.openapi_schema = None
