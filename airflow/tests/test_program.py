"""The operator with the real program, `TIDEMILL_BIN`, on an SQLite file and a silent API."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow.providers.tidemill.operators.ingest import TidemillIngestOperator

PATIENCE = 60.0
INGEST = """
[schedule]
every = "1s"
[fetch]
url = "http://{api}/"
records = "results"
page_parameter = "page"
timeout = "300ms"
tries = 1000
[land]
table = "t"
key = "id"
columns = [{{ name = "id", path = "id", type = "int" }}]
"""


def until(what: str, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@dataclass
class Silent:
    """A pipeline whose API takes requests and answers none."""

    folder: str
    api: socket.socket

    def is_asked(self) -> None:
        """Wait for a request: from then on the program hears signals."""
        self.api.settimeout(PATIENCE)
        self.api.accept()


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Silent]:
    with socket.create_server(("127.0.0.1", 0)) as api:
        folder = tmp_path / "silent"
        folder.mkdir()
        host, port = api.getsockname()
        (folder / "ingest.toml").write_text(INGEST.format(api=f"{host}:{port}"))
        extra = {"binary": os.environ["TIDEMILL_BIN"], "data": str(tmp_path / "data.sqlite")}
        connection = {"conn_type": "tidemill", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_TIDEMILL_DEFAULT", json.dumps(connection))
        yield Silent(str(folder), api)


def ended(process: int) -> bool:
    """Whether a process has ended, or nobody has noticed that it has."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_a_killed_task_ends_the_program_cleanly(silent: Silent) -> None:
    operator = TidemillIngestOperator(task_id="t", pipeline=silent.folder, pages="1")
    raised: list[BaseException] = []

    def run() -> None:
        try:
            operator.execute({})
        except AirflowException as error:
            raised.append(error)

    # PR_SET_PDEATHSIG is about the thread that started the program: it waits for its end.
    running = threading.Thread(target=run)
    running.start()
    silent.is_asked()
    operator.on_kill()
    running.join(PATIENCE)
    assert not running.is_alive()
    assert "tidemill ended with 6: stopped before everything was landed" in str(raised[0])


def test_the_program_does_not_outlive_its_task(silent: Silent, tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = f"""
import threading, time
from pathlib import Path
from airflow.providers.tidemill.operators.ingest import TidemillIngestOperator
operator = TidemillIngestOperator(task_id="t", pipeline={silent.folder!r}, pages="1")
def tell():
    while operator._process is None:
        time.sleep(0.02)
    Path({str(told)!r}).write_text(f"{{operator._process.pid}}.")
threading.Thread(target=tell, daemon=True).start()
operator.execute({{}})
"""
    parent = subprocess.Popen([sys.executable, "-c", code])  # noqa: S603
    until("the program runs", lambda: told.exists() and told.read_text().endswith("."))
    program = int(told.read_text().rstrip("."))
    assert not ended(program)
    parent.send_signal(signal.SIGKILL)
    parent.wait(PATIENCE)
    until("the program ends", lambda: ended(program))


def test_what_no_retry_mends_is_not_tried_again(silent: Silent) -> None:
    operator = TidemillIngestOperator(task_id="t", pipeline=silent.folder, pages="5..1")
    with pytest.raises(AirflowFailException, match="expected a page such as 3"):
        operator.execute({})
    operator = TidemillIngestOperator(task_id="t", pipeline=f"{silent.folder}/nowhere")
    with pytest.raises(AirflowException, match="there is no pipeline at"):
        operator.execute({})


def test_a_program_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "tidemill", "extra": {"binary": "/nowhere/tidemill"}}
    monkeypatch.setenv("AIRFLOW_CONN_TIDEMILL_DEFAULT", json.dumps(connection))
    with pytest.raises(AirflowFailException, match="/nowhere/tidemill cannot be run"):
        TidemillIngestOperator(task_id="t", pipeline="p").execute({})
