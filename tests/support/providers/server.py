"""What all fake providers share: keys, windows, credits, delays, faults, callbacks and counting.

A call goes this way: counted, delayed, broken if a fault is scripted for its path, its key looked
at, its windows looked at, its credits looked at, answered, billed.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

import aiohttp
from aiohttp import web

from tests.support.providers.windows import Arrival, Arrivals, Limit, Meter, Usage

CALLBACK_S = 5.0
ANY = "*"
"""The path that stands for all of them."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request as a fake sees it."""

    method: str
    path: str
    """Without `base_path`; as its route is written (`/webhook_result/*`)."""
    params: Mapping[str, str]
    """Of the query; of a parameter given twice the first."""
    lists: Mapping[str, Sequence[str]]
    """Of the query, every value of each parameter."""
    headers: Mapping[str, str]
    """Names in any case."""
    body: Any = None
    """The body's JSON; None without one, or if it is none."""
    rest: str = ""
    """What stands in the place of the route's `*`."""
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Callback:
    """What is posted later."""

    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: `body` is bytes, text, or a value that goes out as JSON."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json; charset=utf-8"
    credits: Decimal | int = 0
    callback: Callback | None = None

    def raw(self) -> bytes:
        """Return the body's bytes."""
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


@dataclass(slots=True)
class Account:
    """What one key may do."""

    balance: Decimal | None = None
    """Credits left; None is without end."""
    is_revoked: bool = False


class KeyTrouble(StrEnum):
    """What is wrong with a key."""

    MISSING = "missing"
    WRONG = "wrong"
    REVOKED = "revoked"


class CallbackStyle(StrEnum):
    """When and how often a callback is posted."""

    PROMPT = "prompt"
    """Right after the answer that announced it."""
    EARLY = "early"
    """Before that answer."""
    DUPLICATE = "duplicate"
    """Right after, and once more."""
    LATE = "late"
    """When the test says `release_callbacks`."""
    NEVER = "never"


Answer = Callable[[Question], Reply]
Fault = Callable[
    ["FakeProvider", web.Request, Callable[[], Awaitable[Reply]]],
    Awaitable[Reply | web.StreamResponse],
]
"""Answers in the place of a fake; the last argument gives what it would have said."""


class FakeProvider:
    """One provider on a port of loopback, from `async with` to its end."""

    name: ClassVar[str]
    base_path: ClassVar[str] = ""
    limits: ClassVar[Mapping[str, Sequence[Limit]]] = {}
    """What the provider documents."""
    free_paths: ClassVar[frozenset[str]] = frozenset()
    """Answered without a credit left."""
    open_paths: ClassVar[frozenset[str]] = frozenset()
    """Answered without a key."""
    side_paths: ClassVar[frozenset[str]] = frozenset()
    """No questions about anybody: not limited, not among `calls`, passed by by faults of `*`."""

    def __init__(
        self,
        *,
        keys: Sequence[str] = (),
        balance: Decimal | int | None = None,
        limits: Mapping[str, Sequence[Limit]] | None = None,
        latency_s: float = 0.0,
        callback_style: CallbackStyle = CallbackStyle.PROMPT,
        clock: Callable[[], float] = time.monotonic,
        port: int = 0,
    ) -> None:
        """Take what differs from the documented account; `limits={}` is without limits."""
        self.key = keys[0] if keys else f"{self.name}-key-1"
        credits = None if balance is None else Decimal(balance)
        self.accounts = {key: Account(credits) for key in keys or (self.key,)}
        self.meter = Meter(self.limits if limits is None else limits, clock=clock)
        self.latency_s = latency_s
        self.callback_style = callback_style
        self.calls: Counter[str] = Counter()
        """By path; `calls.total()` is all of them, refused ones too."""
        self.side_calls: Counter[str] = Counter()
        self.calls_by_subject: Counter[str] = Counter()
        """By whom was asked about, as `subject_of` says."""
        self.credits_by_path: defaultdict[str, Decimal] = defaultdict(Decimal)
        self.credits_by_subject: defaultdict[str, Decimal] = defaultdict(Decimal)
        self.refused: Counter[str] = Counter()
        """Calls that were turned away, by why: `missing`, `wrong`, `revoked`, `rate`, `credits`."""
        self.arrivals = Arrivals()
        self.questions: deque[Question] = deque(maxlen=10_000)
        self.callbacks_sent: list[tuple[str, int | str]] = []
        """(URL, status or the class of what went wrong) of each post."""
        self.closing = asyncio.Event()
        self._port = port
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._lasting: dict[str, Fault] = {}
        self._held: list[Callback] = []
        self._posts: set[asyncio.Task[None]] = set()
        self._runner: web.ServerRunner | None = None
        self._routes = {(method, path): answer for (method, path), answer in self.routes().items()}

    # What a provider says of itself.

    def routes(self) -> Mapping[tuple[str, str], Answer]:
        """Return the answer for each (method, path); a last segment `*` takes any text."""
        raise NotImplementedError

    def key_of(self, question: Question) -> str | None:
        """Return the key a question carries, None without one."""
        raise NotImplementedError

    def subject_of(self, question: Question) -> str:
        """Return whom a question is about, the same text however it is asked."""
        return ""

    def refuse_key(self, question: Question, trouble: KeyTrouble) -> Reply:
        """Return the answer to a missing, wrong or revoked key."""
        raise NotImplementedError

    def refuse_rate(self, question: Question, usage: Usage) -> Reply:
        """Return the answer to a call beyond a window."""
        raise NotImplementedError

    def refuse_credits(self, question: Question) -> Reply:
        """Return the answer when the credits are used up."""
        raise NotImplementedError

    def no_route(self, question: Question) -> Reply:
        """Return the answer for a path that is not there."""
        return Reply(404, "Not Found", content_type="text/plain; charset=utf-8")

    def standing_headers(self, question: Question, reply: Reply) -> Mapping[str, str]:
        """Return the headers that say how a key stands; none unless overridden."""
        return {}

    # What a test says and asks.

    @property
    def url(self) -> str:
        """The base URL, as a provider's `base_url` setting takes it."""
        return self.origin + self.base_path

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def credits_spent(self) -> Decimal:
        """What all answers cost together."""
        return sum(self.credits_by_path.values(), Decimal())

    def script(self, path: str, *faults: Fault) -> None:
        """Let the next calls of a path (`*`: of any) end so, one after the other."""
        self._faults[path].extend(faults)

    def always(self, path: str, fault: Fault | None) -> None:
        """Let every call of a path end so; None ends that."""
        if fault is None:
            self._lasting.pop(path, None)
        else:
            self._lasting[path] = fault

    async def release_callbacks(self) -> int:
        """Post what was held back and return how many there were."""
        held, self._held = self._held, []
        for callback in held:
            await self._post(callback)
        return len(held)

    async def settle_callbacks(self) -> None:
        """Wait until everything that is being posted has arrived."""
        while self._posts:
            await asyncio.wait(set(self._posts))

    def stats(self) -> dict[str, Any]:
        """Return the counters as JSON, as `GET /_fake` answers."""
        return {
            "provider": self.name,
            "calls": dict(self.calls),
            "callsBySubject": dict(self.calls_by_subject),
            "creditsSpent": float(self.credits_spent),
            "creditsByPath": {path: float(sum_) for path, sum_ in self.credits_by_path.items()},
            "refused": dict(self.refused),
            "mostInOneSecond": self.arrivals.max_in_window(1.0),
        }

    async def __aenter__(self) -> Self:
        server = web.Server(self._handle)
        runner = self._runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self._port, backlog=1024).start()
        self._port = runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closing.set()
        for post in self._posts:
            post.cancel()
        await asyncio.gather(*self._posts, return_exceptions=True)
        assert self._runner is not None
        await self._runner.cleanup()

    # The way of one call.

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, web.BaseRequest)
        if request.path == "/_fake":
            return web.json_response(self.stats())
        question = await self._question(request)
        subject = self.subject_of(question)
        if question.path in self.side_paths:
            self.side_calls[question.path] += 1
        else:
            self.calls[question.path] += 1
            self.calls_by_subject[subject] += 1
            self.arrivals.append(Arrival(time.monotonic(), question.path, question.key, subject))
            self.questions.append(question)
        if self.latency_s:
            await asyncio.sleep(self.latency_s)

        async def answer() -> Reply:
            return self._answer(question, subject)

        fault = self._next_fault(question.path)
        given = await (fault(self, request, answer) if fault else answer())  # type: ignore[arg-type]
        if isinstance(given, web.StreamResponse):
            return given
        return await self._send(request, given)

    async def _question(self, request: web.BaseRequest) -> Question:
        path = request.path
        if self.base_path and path.startswith(self.base_path + "/"):
            path = path[len(self.base_path) :]
        rest = ""
        if (request.method, path) not in self._routes:
            parent, _, last = path.rpartition("/")
            if (request.method, f"{parent}/*") in self._routes:
                path, rest = f"{parent}/*", last
        body = await request.read()
        try:
            parsed = json.loads(body) if body else None
        except ValueError:
            parsed = None
        query = request.query
        question = Question(
            method=request.method,
            path=path,
            params={name: query[name] for name in query},
            lists={name: query.getall(name) for name in query},
            headers=request.headers,
            body=parsed,
            rest=rest,
        )
        return _with_key(question, self.key_of(question))

    def _next_fault(self, path: str) -> Fault | None:
        for scope in (path,) if path in self.side_paths else (path, ANY):
            if self._faults[scope]:
                return self._faults[scope].popleft()
        lasting = None if path in self.side_paths else self._lasting.get(ANY)
        return self._lasting.get(path) or lasting

    def _answer(self, question: Question, subject: str) -> Reply:
        reply = self._refusal(question)
        if reply is None:
            reply = self._routes[question.method, question.path](question)
            account = self.accounts.get(question.key or "")
            credits = Decimal(reply.credits)
            if account is not None and account.balance is not None:
                if credits > account.balance:
                    self.refused["credits"] += 1
                    reply, credits = self.refuse_credits(question), Decimal()
                account.balance -= credits
            if credits:
                self.credits_by_path[question.path] += credits
                self.credits_by_subject[subject] += credits
        headers = {**self.standing_headers(question, reply), **reply.headers}
        return Reply(reply.status, reply.body, headers, reply.content_type, callback=reply.callback)

    def _refusal(self, question: Question) -> Reply | None:
        if (question.method, question.path) not in self._routes:
            return self.no_route(question)
        if question.path in self.open_paths:
            return None
        account = self.accounts.get(question.key) if question.key else None
        if account is None or account.is_revoked:
            trouble = KeyTrouble.WRONG if question.key else KeyTrouble.MISSING
            trouble = KeyTrouble.REVOKED if account else trouble
            self.refused[trouble] += 1
            return self.refuse_key(question, trouble)
        assert question.key is not None
        is_metered = question.path not in self.side_paths
        usage = self.meter.count(question.key, question.path) if is_metered else None
        if usage is not None:
            self.refused["rate"] += 1
            return self.refuse_rate(question, usage)
        is_broke = account.balance is not None and account.balance <= 0
        if is_broke and question.path not in self.free_paths:
            self.refused["credits"] += 1
            return self.refuse_credits(question)
        return None

    async def _send(self, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
        callback = reply.callback
        if callback is not None and self.callback_style is CallbackStyle.EARLY:
            await self._post(callback)
        body = reply.raw()
        headers = {**reply.headers, "Content-Length": str(len(body))}
        if body or reply.status != 204:
            headers.setdefault("Content-Type", reply.content_type)
        response = web.StreamResponse(status=reply.status, headers=headers)
        await response.prepare(request)
        await response.write_eof(body)
        if callback is not None:
            self._call_back(callback)
        return response

    def _call_back(self, callback: Callback) -> None:
        copies = {CallbackStyle.PROMPT: 1, CallbackStyle.DUPLICATE: 2}.get(self.callback_style, 0)
        if self.callback_style is CallbackStyle.LATE:
            self._held.append(callback)
        if copies:
            post = asyncio.create_task(self._post(callback, copies))
            self._posts.add(post)
            post.add_done_callback(self._posts.discard)

    async def _post(self, callback: Callback, copies: int = 1) -> None:
        headers = {"Content-Type": "application/json", **callback.headers}
        timeout = aiohttp.ClientTimeout(total=CALLBACK_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for _ in range(copies):
                try:
                    async with session.post(
                        callback.url, data=callback.body, headers=headers
                    ) as response:
                        self.callbacks_sent.append((callback.url, response.status))
                except (aiohttp.ClientError, TimeoutError) as error:
                    self.callbacks_sent.append((callback.url, type(error).__name__))


def _with_key(question: Question, key: str | None) -> Question:
    return Question(
        question.method,
        question.path,
        question.params,
        question.lists,
        question.headers,
        question.body,
        question.rest,
        key,
    )


Fake = TypeVar("Fake", bound=FakeProvider)


@contextmanager
def in_thread(make: Callable[[], Fake]) -> Iterator[Fake]:
    """Run a fake on an event loop in a thread of its own, for callers without one."""
    ready = threading.Event()
    running: list[tuple[Fake, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        ended = asyncio.Event()
        async with make() as fake:
            running.append((fake, asyncio.get_running_loop(), ended))
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    if not ready.wait(10):
        raise RuntimeError("the fake did not start")
    fake, loop, ended = running[0]
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
