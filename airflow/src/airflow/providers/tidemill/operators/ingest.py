"""The operator that fetches and publishes."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow.providers.tidemill.hooks.tidemill import TidemillHook

if TYPE_CHECKING:
    from airflow.sdk import Context

# Exit codes of `tidemill ingest --once`; see `tidemill --help`.
USAGE = 2
STOPPED = 6
INCOMPLETE = 7
# Linux's prctl: the signal that a process gets when its parent ends.
PR_SET_PDEATHSIG = 1
# Seconds from asking the program to end until it is killed. A page that is being asked for ends
# with its answer or its time-out.
END_PATIENCE = 45


class TidemillIngestOperator(BaseOperator):
    """Fetches what is due, or a range of pages, and returns when all of it is published.

    Returns what `tidemill ingest --once` tells: `pages`, `failed_pages`, `fetched`, `landed`,
    `changed`, `dead`, `published`, and `lsn`, which `TidemillViewsSensor` takes. Pages that are
    done are passed over, so that a task that is tried again goes on where it ended.

    The task fails when pages failed for good; when it is tried again they are asked for again. A
    wrong command line or connection is not tried again.

    :param pipeline: the pipeline's folder
    :param pages: pages to fetch, due or not, such as `3` or `1..5`
    :param until: or as many pages as it takes for the table to have so many rows
    :param refetch: fetch pages also that are done
    :param name: the pipeline's name, if not the folder's
    :param api: another API than the pipeline's
    :param env: further variables of the program
    :param tidemill_conn_id: the connection, which names the program and the services
    """

    template_fields: Sequence[str] = ("pipeline", "pages", "until", "refetch", "name", "api", "env")
    ui_color = "#b9d4c4"

    def __init__(
        self,
        *,
        pipeline: str,
        pages: str | None = None,
        until: int | str | None = None,
        refetch: bool | str = False,
        name: str | None = None,
        api: str | None = None,
        env: dict[str, str] | None = None,
        tidemill_conn_id: str = TidemillHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.pages = pages
        self.until = until
        self.refetch = refetch
        self.name = name
        self.api = api
        self.env = env
        self.tidemill_conn_id = tidemill_conn_id
        self._process: subprocess.Popen[str] | None = None

    def command(self, binary: str) -> list[str]:
        """Return the command line."""
        command = [binary, "ingest", self.pipeline, "--once"]
        flags = {
            "--pages": self.pages,
            "--until": self.until,
            "--name": self.name,
            "--api": self.api,
        }
        for flag, value in flags.items():
            if value:
                command += [flag, str(value)]
        # A template makes text of it.
        if str(self.refetch).lower() == "true":
            command.append("--refetch")
        return command

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the program and return what it tells last."""
        hook = TidemillHook(self.tidemill_conn_id)
        command = self.command(hook.binary())
        self.log.info("running %s", " ".join(command))
        environment = {**os.environ, **hook.environment(), **(self.env or {})}
        try:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                preexec_fn=_ends_with(os.getpid()),
            )
        except OSError as error:
            raise AirflowFailException(
                f"{command[0]} cannot be run: {error}; name the program in the extra of connection "
                f"`{self.tidemill_conn_id}`, as `binary`"
            ) from error
        return self._told(self._process)

    def _told(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        said: list[str] = []
        reading = threading.Thread(target=self._log, args=(process.stderr, said), daemon=True)
        reading.start()
        last = ""
        for line in process.stdout or ():
            last = line.strip() or last
        code = process.wait()
        reading.join()
        self._process = None
        why = said[-1] if said else ""
        if code in (0, INCOMPLETE):
            result: dict[str, Any] = json.loads(last)
            self.log.info("%s", last)
            if code == INCOMPLETE:
                raise AirflowException(f"{why}: {last}")
            return result
        if code == USAGE:
            raise AirflowFailException(why)
        how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
        raise AirflowException(f"tidemill {how}: {why}")

    def _log(self, lines: IO[str] | None, said: list[str]) -> None:
        for line in lines or ():
            text = line.rstrip()
            self.log.info("%s", text)
            # What an error is told by; lines of advice follow it.
            if text.startswith("error: ") or not said:
                said.append(text.removeprefix("error: "))

    def on_kill(self) -> None:
        """Have the program end cleanly: what it has is landed, what it has not is due again."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        self.log.info("ending tidemill, process %d", process.pid)
        process.terminate()
        try:
            process.wait(END_PATIENCE)
        except subprocess.TimeoutExpired:
            self.log.warning("tidemill did not end within %d s and is killed", END_PATIENCE)
            process.kill()


def _ends_with(parent: int) -> Callable[[], None] | None:
    """Return what has a child end when this process ends, however that ends."""
    if not sys.platform.startswith("linux"):
        return None
    # Loaded here: a child between fork and exec loads nothing.
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(STOPPED)

    return prepare
