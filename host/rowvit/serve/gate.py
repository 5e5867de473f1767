# SPDX-License-Identifier: Apache-2.0
"""What every request passes first: who may ask, how much may be sent, and a line of log for each.

Where the bodies of all requests are too many, those of the address that sends the most give way, so that
nobody shuts others out; of one address the next is read when there is room.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import math
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rowvit.decoding import give_back
from rowvit.serve.engine import ADDRESS
from rowvit.serve.lessons import PREFIX
from rowvit.serve.refusal import Refusal
from rowvit.serve.service import Service

LOG = logging.getLogger("rowvit.serve")
COOKIE = "rowvit-token"
LEFT = 499  # of a client that does not take its answer, as nginx notes it
#: what load balancers ask, without a token
_LIVE = "/v2/health/live"
_OPEN = (_LIVE, "/v2/health/ready")
_SAFE = ("GET", "HEAD", "OPTIONS")  # they change and compute nothing
_GUESSES, _PENANCE = 10, 60.0  # wrong tokens from an address in so many seconds
_ADDRESSES = 4096  # whose wrong tokens are remembered, at most
#: bytes of a large body, which are given back to the system after so many seconds
_LARGE, _SOON = 1_000_000, 0.1
_PART = 64 << 10  # bytes of an answer that are sent at once; a larger one counts as a body does
_ODD = re.compile(r"[^0-9A-Za-z.:%_-]")  # of an address
_LESSON = re.compile(rf"{PREFIX}[A-Za-z0-9_-]+")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # with less, the page's own form would send no origin
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
        b" media-src blob:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
]


def neighbourhood(address: str) -> str:
    """An address; of IPv6 its network of 64 bits, which one host may have as a whole."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)


@dataclass(eq=False)
class _Body:
    """Of one request."""

    address: str
    size: int = 0
    most: int = 0  # that it ever was
    read: int = 0
    arrived: bool = False
    sends: bool = False  # a large answer, which counts in its place
    displaced: bool = False
    scope: anyio.CancelScope | None = None  # in which its client is waited for

    @property
    def gives_way(self) -> bool:
        """Whether it is its client that it waits for."""
        return self.sends or not self.arrived


class _Bodies:
    """The bodies that are here, or have been let in and are on their way."""

    def __init__(self) -> None:
        self.all: set[_Body] = set()
        self._less = asyncio.Event()  # that one is gone, or smaller

    def take(self, own: _Body, size: int, limit: int) -> None:
        """So many bytes are a body's; `Refusal` 429 if all have more than ``limit``, and none gives way."""
        less, own.size = size <= own.size, size
        if less:
            self._wake()
            return
        own.most = max(own.most, own.size)
        while sum(one.size for one in self.all) > limit:
            by_address: Counter[str] = Counter()
            for one in self.all:
                by_address[one.address] += one.size
            largest = max(by_address, key=lambda address: (by_address[address], address == own.address))
            slow = [one for one in self.all if one.address == largest and one.gives_way and one.size]
            if largest == own.address or not slow:
                own.size = 0  # of what is not taken nothing counts
                raise _too_many()
            other = max(slow, key=lambda one: one.size)
            other.displaced, other.size = True, 0
            if other.scope is not None:
                other.scope.cancel()

    async def let_in(self, own: _Body, size: int, limit: int, seconds: float) -> None:
        """Room for a whole body, before any of it is read; `Refusal` 429 if there is none in time."""
        with anyio.move_on_after(seconds):
            while True:
                try:
                    return self.take(own, size, limit)
                except Refusal:
                    await self._less.wait()
        raise _too_many()

    def discard(self, own: _Body) -> None:
        self.all.discard(own)
        self._wake()

    def _wake(self) -> None:
        self._less.set()
        self._less = asyncio.Event()


def _too_many() -> Refusal:
    return Refusal(429, "too many large requests are here already", "try again in 1 s", 1)


class _Guesses:
    """Wrong tokens, by address; ``clock`` gives seconds.

    To repeat one is no guessing: a page that is open sends an old one every second.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wrong: dict[str, deque[tuple[float, int]]] = {}

    def check(self, address: str) -> None:
        """`Refusal` 429 after too many; then no token is looked at."""
        times = self._wrong.get(address)
        if times is None or len(times) < _GUESSES:
            return
        if (left := times[0][0] + _PENANCE - self._clock()) > 0:
            raise Refusal(
                429, f"{_GUESSES} wrong tokens came from here", "try again later", max(1, math.ceil(left))
            )

    def note(self, address: str, token: str) -> None:
        known = hash(token)  # of which Python has a secret of each process
        if address not in self._wrong and len(self._wrong) == _ADDRESSES:
            del self._wrong[next(iter(self._wrong))]
        times = self._wrong.setdefault(address, deque(maxlen=_GUESSES))
        if all(known != other for _, other in times):
            times.append((self._clock(), known))


class Gate:
    """Around the application.

    Parameters
    ----------
    app : ASGI application
    service : Service
    refused : callable
        Makes the answer of a request and its `Refusal`.
    """

    def __init__(
        self, app: ASGIApp, service: Service, refused: Callable[[Request, Exception], Response]
    ) -> None:
        self.app, self.service, self._refused = app, service, refused
        self._bodies, self._guesses = _Bodies(), _Guesses(service.clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, status = time.monotonic(), 500
        limits = self.service.limits
        largest = self.service.largest(scope["path"])
        address = neighbourhood(str(next(iter(scope.get("client") or "-"))))
        ADDRESS.set(address)
        own, whole = _Body(address), anyio.CancelScope()
        self._bodies.all.add(own)
        self.service.open_requests += 1

        room = max(limits.bodies, largest)

        def hold(size: int) -> None:
            self._bodies.take(own, own.size + size, room)

        def beside(size: int, most: int) -> int:
            """Bytes of all: small ones do not wait for large ones that dawdle."""
            return most + most // 4 if size <= _LARGE else most

        async def answers(size: int) -> None:
            """Room for an answer, which then counts in place of its request; of any size if it is alone."""
            left = max(0.0, begin + limits.deadline - time.monotonic())
            await self._bodies.let_in(own, size, beside(size, max(limits.bodies, size)), left)

        until = math.inf  # that its client must have taken the answer

        async def noted(message: Message) -> None:
            nonlocal status, until
            if message["type"] == "http.response.start":
                status = message["status"]
                last = [(b"connection", b"close")] if self.service.stopping else []
                message["headers"] = [*message["headers"], *_HEADERS, *last]
                size = int(Headers(raw=message["headers"]).get("content-length", "0"))
                if size > _PART:
                    try:
                        await answers(size)
                        own.sends = True
                    except Refusal as refusal:
                        status = refusal.status
                        await self._refused(request, refusal)(scope, receive, send)
                        whole.cancel()
                        await anyio.sleep_forever()
                until = time.monotonic() + limits.deadline * (1 + size // _LARGE)
            taken = False
            with anyio.move_on_after(max(0.0, until - time.monotonic())) as waiting:
                own.scope = waiting
                # a part waits until the one before is taken, and what is written is in buffers
                for part in _parts(message):
                    await send(part)
                taken = True
            own.scope = None
            if own.displaced or not taken:
                status = LEFT
                whole.cancel()
                await anyio.sleep_forever()

        async def limited() -> Message:
            if own.arrived:
                return await receive()
            message: Message | None = None
            if not own.read and (length := _length(request)):
                left = max(0.0, begin + limits.deadline - time.monotonic())
                await self._bodies.let_in(own, length, beside(length, room), left)
            with anyio.move_on_after(max(0.0, begin + limits.deadline - time.monotonic())) as waiting:
                own.scope = waiting
                message = await receive()
            own.scope = None
            if own.displaced:
                raise _too_many()
            if message is None:
                raise Refusal(408, "the request did not arrive in time", "send it again")
            own.arrived = not message.get("more_body", False)
            own.read += len(message.get("body", b""))
            if own.read > largest:
                raise Refusal(413, f"the request is larger than {largest:,} bytes", "send fewer at once")
            if own.read > own.size:  # nobody has said its length
                hold(own.read - own.size)
            return message

        scope.setdefault("state", {}).update(note="", hold=hold, answers=answers)
        request = Request(scope)
        try:
            try:
                answer = self._admitted(request, address, largest)
            except Refusal as refusal:
                answer = self._refused(request, refusal)
            with whole:
                if answer is None:
                    await self.app(scope, limited, noted)
                else:
                    await answer(scope, receive, noted)
        finally:
            self._bodies.discard(own)
            self.service.open_requests -= 1
            if own.most > _LARGE:  # when nobody holds it any more
                asyncio.get_running_loop().call_later(_SOON, give_back)
            self._log(scope, status, time.monotonic() - begin)

    def _admitted(self, request: Request, address: str, largest: int) -> Response | None:
        """What a request gets instead of an answer, or `Refusal`, if its headers say enough."""
        path = request.scope["path"]
        self._check_host(request)
        if self.service.stopping and path != _LIVE:
            raise Refusal(503, "the server is stopping", "send it again later, or to another", 1)
        if (answer := self._check_token(request, address)) is not None:
            return answer
        if _length(request) > largest:
            raise Refusal(413, f"the request is larger than {largest:,} bytes", "send less")
        return None

    def _check_host(self, request: Request) -> None:
        """`Refusal` 421 for a name that is not this server's, 403 for what another site's page sends.

        A page whose name was made to point here could read answers; by an address, no page can.
        """
        host = request.headers.get("host", "")
        if host and not self._ours(_name(host)):
            raise Refusal(
                421, f"'{_name(host)[:60]}' is not served here", "use the address, or start with --allow-host"
            )
        origin = request.headers.get("origin")
        if request.method in _SAFE or origin is None:
            return
        site = _site(origin)
        if site != host.lower() and _name(site) not in self.service.allowed:
            advice = "use this server's page, or --allow-host"
            raise Refusal(403, f"a page of {origin[:60]} may not use this server", advice)

    def _ours(self, name: str) -> bool:
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.service.names or name in self.service.allowed
        return True

    def _check_token(self, request: Request, address: str) -> Response | None:
        """A redirection that sets the cookie, where the address has the token; `Refusal` 401, 429."""
        token, path = self.service.token, request.scope["path"]
        if not token or path in _OPEN:
            return None
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        cookie = _cookie(request)
        given = given or request.cookies.get(cookie, "")
        asked = request.query_params.get("token", "") if path == "/" else ""
        if given or asked:
            self._guesses.check(address)
        if self._known(given):
            return None
        if self._known(asked):
            answer = RedirectResponse("./", 303)  # so that the token does not stay in the address
            # a link on another site may lead here: its GET changes nothing, and other methods have an origin
            secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
            answer.set_cookie(cookie, token, 30 * 86400, httponly=True, samesite="lax", secure=secure)
            return answer
        for wrong in filter(None, (given, asked)):
            self._guesses.note(address, wrong)
        advice = "open /?token=TOKEN in a browser, or send the header Authorization: Bearer TOKEN"
        raise Refusal(401, "this server wants its token", advice)

    def _known(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.service.token.encode())

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        endpoint = scope.get("endpoint")
        route = getattr(endpoint, "__name__", "_static")[1:] if endpoint else "none"
        self.service.metrics.requests.labels(route, str(status)).inc()
        self.service.metrics.request_seconds.labels(route).observe(seconds)
        client = scope.get("client") or ("-",)
        path = scope.get("raw_path", b"").decode("ascii", "backslashreplace")  # as it came: one line
        path = _LESSON.sub(f"{PREFIX}...", path)  # whoever knows the rest can use it
        note = scope["state"]["note"]
        who = _ODD.sub("?", str(client[0])[:60])  # a proxy may say anything
        LOG.info("%s %s %s %d %.1f ms %s", who, scope["method"], path, status, 1e3 * seconds, note)


def _parts(message: Message) -> Iterator[Message]:
    """A message of an answer, in parts where its body is large."""
    body = message.get("body", b"")
    if len(body) <= _PART:
        yield message
        return
    for first in range(0, len(body), _PART):
        more = message.get("more_body", False) or first + _PART < len(body)
        yield {**message, "body": body[first : first + _PART], "more_body": more}


def _length(request: Request) -> int:
    """Bytes of the body, as the headers say; 0 if they do not."""
    length = request.headers.get("content-length", "0")
    return int(length) if length.isdecimal() else 0


def _site(origin: str) -> str:
    """Its host and port; none of what is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _cookie(request: Request) -> str:
    """Where the token is: for browsers, a host's ports are one site."""
    try:
        port = urlsplit(f"//{request.headers.get('host', '')}").port
    except ValueError:
        port = None
    return COOKIE if port is None else f"{COOKIE}-{port}"


def _name(host: str) -> str:
    """A host's name or address, without its port; none of what names a user, too."""
    try:
        return "" if "@" in host else (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""
