"""The way to a Tidemill master, and the environment of the `tidemill` program."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx
from airflow.sdk import BaseHook

if TYPE_CHECKING:
    from airflow.sdk import Connection

DEFAULT_PORT = 7070
# Seconds that one answer may take: the master itself asks a process, which asks the services.
ANSWER_PATIENCE = 20.0
# Services that a connection's extra may name, as `tidemill`'s flags and variables do.
SERVICES = ("postgres", "kafka", "registry", "cassandra", "state", "data")


class TidemillRefused(Exception):  # noqa: N818
    """The master says no; the same question would be refused again."""


class TidemillAway(Exception):  # noqa: N818
    """Nobody answers, or somebody that cannot say now: ask again later."""


@dataclass(frozen=True)
class Readable:
    """Whether everything that was committed before is in every view of a job, and how far it is."""

    readable: bool
    lsn: str | None = None
    ends: dict[str, dict[str, int]] | None = None
    epoch: int = 0
    waits_for: str | None = None
    ended: str | None = None

    @property
    def result(self) -> dict[str, Any]:
        """What a task returns: the place in the database and the epoch that shows it."""
        return {"lsn": self.lsn, "epoch": self.epoch}


@dataclass(frozen=True)
class Question:
    """What is to be readable: everything before an LSN, or a time, or what is committed now."""

    job: str
    lsn: str | None = None
    committed_before: str | None = None
    ends: dict[str, dict[str, int]] | None = None

    def after(self, answer: Readable) -> Question:
        """Return the question to go on with."""
        return Question(self.job, answer.lsn, self.committed_before, answer.ends)

    def body(self) -> dict[str, Any]:
        """Return it as the master takes it."""
        body: dict[str, Any] = {"lsn": self.lsn, "ends": self.ends}
        if self.committed_before is not None:
            at = datetime.fromisoformat(self.committed_before)
            if at.tzinfo is None:
                raise ValueError(f"{self.committed_before}: a time needs an offset from UTC")
            body["committed_before_ms"] = int(at.timestamp() * 1000)
        return body


@dataclass(frozen=True)
class Way:
    """Where a master answers, and what it wants to be shown."""

    url: str
    token: str | None = field(default=None, repr=False)
    ca: str | None = None

    @classmethod
    def of(cls, connection: Connection) -> Way:
        """Return the way that a connection describes."""
        extra = connection.extra_dejson
        scheme = connection.schema or ("https" if extra.get("ca") else "http")
        if scheme not in ("http", "https"):
            raise ValueError(f"connection `{connection.conn_id}`: its schema is http or https")
        host = connection.host or "127.0.0.1"
        url = f"{scheme}://{host}:{connection.port or DEFAULT_PORT}"
        return cls(url, connection.password or None, extra.get("ca"))

    def settings(self) -> dict[str, Any]:
        """Return what httpx's clients take."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        verify = ssl.create_default_context(cafile=self.ca) if self.ca else True
        return {
            "base_url": self.url,
            "headers": headers,
            "verify": verify,
            "timeout": ANSWER_PATIENCE,
            # A proxy of the environment is for the world, not for the cluster.
            "trust_env": False,
        }


def answered(response: httpx.Response) -> Any:
    """Return the JSON of an answer."""
    try:
        body = response.json()
    except json.JSONDecodeError:
        body = None
    if response.is_success and body is not None:
        return body
    why = body.get("error") if isinstance(body, dict) else None
    why = f"{response.url}: {why or f'answers {response.status_code}'}"
    if response.is_success or response.is_server_error or response.status_code == 429:
        raise TidemillAway(why)
    raise TidemillRefused(why)


def readable_of(body: Any) -> Readable:
    """Return an answer of the master's."""
    fields = ("readable", "lsn", "ends", "epoch", "waits_for", "ended")
    return Readable(**{name: body[name] for name in fields if name in body})


def path_of(job: str) -> str:
    """Return the path of the question about a job."""
    return f"/api/v1/jobs/{job}/readable"


class TidemillHook(BaseHook):
    """Asks a Tidemill master.

    The connection's host and port are the master's, its password is the token. Its schema is
    `http` or `https`. Its extra may hold `ca`, a file; `binary`, the program `tidemill`; the
    services that an ingest uses (`postgres`, `kafka`, `registry`), without passwords; and
    `environment`, further variables of the program, such as `TIDEMILL_POSTGRES_PASSWORD`.

    :param tidemill_conn_id: the connection
    """

    conn_name_attr = "tidemill_conn_id"
    default_conn_name = "tidemill_default"
    conn_type = "tidemill"
    hook_name = "Tidemill"

    def __init__(self, tidemill_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.tidemill_conn_id = tidemill_conn_id

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the form of a connection looks."""
        extra = {"binary": "/usr/local/bin/tidemill", "postgres": "postgres://me@db/app"}
        return {
            "hidden_fields": ["login"],
            "relabeling": {"password": "Token", "schema": "http or https"},
            "placeholders": {"port": str(DEFAULT_PORT), "extra": json.dumps(extra)},
        }

    def get_conn(self) -> httpx.Client:
        """Return a client of the master's HTTP."""
        return httpx.Client(**Way.of(self.get_connection(self.tidemill_conn_id)).settings())

    async def aget_conn(self) -> httpx.AsyncClient:
        """Return a client for a trigger."""
        connection = await self.aget_connection(self.tidemill_conn_id)
        return httpx.AsyncClient(**Way.of(connection).settings())

    def jobs(self) -> list[dict[str, Any]]:
        """Return all jobs as the master sees them."""
        with self.get_conn() as client:
            jobs: list[dict[str, Any]] = answered(self._sent(client, "GET", "/api/v1/jobs"))
        return jobs

    def readable(self, question: Question) -> Readable:
        """Ask whether everything that was committed before is in every view of a job."""
        with self.get_conn() as client:
            sent = self._sent(client, "POST", path_of(question.job), question.body())
            return readable_of(answered(sent))

    @staticmethod
    async def areadable(client: httpx.AsyncClient, question: Question) -> Readable:
        """Ask the same from a trigger."""
        try:
            sent = await client.post(path_of(question.job), json=question.body())
        except httpx.TransportError as error:
            raise TidemillAway(f"{client.base_url} does not answer: {error}") from error
        return readable_of(answered(sent))

    def binary(self) -> str:
        """Return the program `tidemill`."""
        extra = self.get_connection(self.tidemill_conn_id).extra_dejson
        return str(extra.get("binary") or "tidemill")

    def environment(self) -> dict[str, str]:
        """Return the variables by which the program finds the services."""
        extra = self.get_connection(self.tidemill_conn_id).extra_dejson
        named = {f"TIDEMILL_{name.upper()}": extra[name] for name in SERVICES if extra.get(name)}
        further = extra.get("environment") or {}
        return {name: str(value) for name, value in {**named, **further}.items()}

    def test_connection(self) -> tuple[bool, str]:
        """Ask the master for its jobs."""
        try:
            jobs = self.jobs()
        except (TidemillAway, TidemillRefused, ValueError) as error:
            return False, str(error)
        return True, f"the master answers; {len(jobs)} jobs"

    @staticmethod
    def _sent(
        client: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None
    ) -> httpx.Response:
        try:
            return client.request(method, path, json=body)
        except httpx.TransportError as error:
            raise TidemillAway(f"{client.base_url} does not answer: {error}") from error
