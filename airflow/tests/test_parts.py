"""What the package tells Airflow, and what its parts are made of."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk import Asset, Connection

import airflow
from airflow.providers.tidemill import assets
from airflow.providers.tidemill.get_provider_info import get_provider_info
from airflow.providers.tidemill.hooks.tidemill import Question, Readable, TidemillHook, Way
from airflow.providers.tidemill.operators.ingest import TidemillIngestOperator
from airflow.providers.tidemill.sensors.views import TidemillViewsSensor
from airflow.providers.tidemill.triggers.views import TidemillViewsTrigger


def named(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(import_module(module), name)


def test_provider_info_fits_its_schema_and_names_what_is_there() -> None:
    info = get_provider_info()
    schema = Path(airflow.__file__).with_name("provider_info.schema.json")
    jsonschema.validate(info, json.loads(schema.read_text()))
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for part in info[kind]:
            for module in part["python-modules"]:
                import_module(module)
    for uri in info["asset-uris"]:
        assert callable(named(uri["handler"]))
        assert callable(named(uri["factory"]))


def test_airflow_finds_the_provider() -> None:
    manager = ProvidersManager()
    assert "apache-airflow-providers-tidemill" in manager.providers
    hook = manager.hooks["tidemill"]
    assert hook is not None
    assert hook.hook_class_name == f"{TidemillHook.__module__}.TidemillHook"


def test_a_view_is_an_asset() -> None:
    first, second = assets.view_assets("users", ["by_country", "created"])
    assert isinstance(first, Asset)
    assert (first.name, first.uri) == ("users.by_country", "tidemill://users/by_country")
    assert second.uri == "tidemill://users/created"
    for wrong in (
        "tidemill://users",
        "tidemill:///v",
        "tidemill://users/a/b",
        "tidemill://u/v?x=1",
    ):
        with pytest.raises(ValueError, match="expected tidemill://JOB/VIEW"):
            assets.sanitize_uri(urlsplit(wrong))


def test_a_trigger_is_made_again_from_what_it_tells() -> None:
    trigger = TidemillViewsTrigger(
        tidemill_conn_id="c",
        job="users",
        lsn="0/1",
        ends={"users": {"0": 7}},
        poke_interval=0.5,
    )
    path, arguments = trigger.serialize()
    again = named(path)(**json.loads(json.dumps(arguments)))
    assert again.serialize() == trigger.serialize()


def test_a_question_goes_on_with_its_answer() -> None:
    question = Question("users", committed_before="2026-11-28T12:00:00+02:00")
    assert question.body() == {"lsn": None, "ends": None, "committed_before_ms": 1795860000000}
    after = question.after(Readable(readable=False, lsn="0/1", ends={"users": {"0": 7}}))
    assert after.body() == {
        "lsn": "0/1",
        "ends": {"users": {"0": 7}},
        "committed_before_ms": 1795860000000,
    }
    with pytest.raises(ValueError, match="needs an offset"):
        Question("users", committed_before="2026-11-28T12:00:00").body()


@pytest.mark.parametrize(
    ("connection", "url"),
    [
        (Connection(conn_id="c", conn_type="tidemill"), "http://127.0.0.1:7070"),
        (Connection(conn_id="c", conn_type="tidemill", host="m", port=1), "http://m:1"),
        (Connection(conn_id="c", conn_type="tidemill", host="m", schema="https"), "https://m:7070"),
    ],
)
def test_a_connection_is_a_way_to_a_master(connection: Connection, url: str) -> None:
    assert Way.of(connection).url == url


def test_a_token_is_shown_to_the_master_and_to_nobody_else() -> None:
    way = Way.of(Connection(conn_id="c", conn_type="tidemill", password="s3cret"))  # noqa: S106
    assert way.settings()["headers"] == {"Authorization": "Bearer s3cret"}
    assert "s3cret" not in repr(way)
    with pytest.raises(ValueError, match="its schema is http or https"):
        Way.of(Connection(conn_id="c", conn_type="tidemill", schema="ftp"))


def test_the_command_line_says_what_was_asked_for() -> None:
    def command(**given: Any) -> list[str]:
        return TidemillIngestOperator(task_id="t", pipeline="p", **given).command("b")

    assert command() == ["b", "ingest", "p", "--once"]
    # Templates make texts of what they are given.
    assert command(pages="1..5", refetch="True", api="") == [
        *("b", "ingest", "p", "--once", "--pages", "1..5", "--refetch"),
    ]
    assert command(until=7, refetch="False", name="n")[4:] == ["--until", "7", "--name", "n"]


def test_a_sensor_that_begins_anew_each_time_needs_a_place() -> None:
    with pytest.raises(ValueError, match="begins anew each time"):
        TidemillViewsSensor(task_id="t", job="j", mode="reschedule")
    sensor = TidemillViewsSensor(task_id="t", job="j", lsn="0/1", mode="reschedule", views=["v"])
    assert [asset.uri for asset in sensor.outlets] == ["tidemill://j/v"]
