"""The whole pipeline: users of randomuser.me, from the API to views in Cassandra.

Once a day a page of users is fetched and stored in PostgreSQL, and captured and published to Kafka.
When the views in Cassandra show them, the sum of a view is compared with the table. Each day has a
page of its own, so that a backfill of days fetches what those days fetch, and a day that is run
again changes nothing.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.apache.cassandra.hooks.cassandra import CassandraHook
from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.sdk import DAG, Param, task

from airflow.providers.tidemill.assets import create_asset
from airflow.providers.tidemill.operators.ingest import TidemillIngestOperator
from airflow.providers.tidemill.sensors.views import TidemillViewsSensor

PIPELINE = os.environ.get("TIDEMILL_PIPELINE", "examples/users")
API = os.environ.get("TIDEMILL_API", "https://randomuser.me/api/1.4/")
# A job is called as its pipeline's folder.
JOB = Path(PIPELINE).name
VIEWS = ["created_users", "users_by_country"]
START = datetime(2026, 11, 1, tzinfo=UTC)


def page_of(dag_run: Any) -> int:
    """Return the page of a day: the first day has page 1."""
    day: datetime = dag_run.logical_date or dag_run.run_after
    return (day - START).days + 1


with DAG(
    "tidemill_users",
    schedule="@daily",
    start_date=START,
    catchup=False,
    # The check compares the whole table.
    max_active_runs=1,
    params={
        "api": Param(
            API,
            type="string",
            description="the API to fetch from; empty: the server that is built into tidemill",
        ),
        "refetch": Param(False, type="boolean", description="fetch the page also if it is done"),
    },
    user_defined_macros={"page_of": page_of},
    default_args={"retries": 3, "retry_delay": timedelta(seconds=10)},
    tags=["tidemill"],
    doc_md=__doc__,
) as dag:
    ingest = TidemillIngestOperator(
        task_id="ingest",
        pipeline=PIPELINE,
        pages="{{ page_of(dag_run) }}",
        refetch="{{ params.refetch }}",
        api="{{ params.api }}",
        execution_timeout=timedelta(minutes=30),
    )
    views = TidemillViewsSensor(
        task_id="views",
        job=JOB,
        lsn="{{ ti.xcom_pull(task_ids='ingest')['lsn'] }}",
        views=VIEWS,
        deferrable=True,
        timeout=600,
    )

    @task
    def check() -> int:
        """Compare the users of all countries with the table."""
        (stored,) = PostgresHook("postgres_users").get_first("SELECT count(*) FROM users")
        cassandra = CassandraHook("cassandra_users")
        try:
            countries = list(cassandra.get_conn().execute("SELECT users FROM users_by_country"))
        finally:
            cassandra.shutdown_cluster()
        shown = sum(country.users for country in countries)
        if shown != stored:
            raise ValueError(f"the view counts {shown} users, the table has {stored}")
        return int(shown)

    ingest >> views >> check()

with DAG(
    "tidemill_users_report",
    schedule=[create_asset(job=JOB, view="users_by_country")],
    start_date=START,
    tags=["tidemill"],
    doc_md="What runs whenever the view is up to date: it is an asset.",
) as report:

    @task
    def largest() -> str:
        """Return the country with most users."""
        cassandra = CassandraHook("cassandra_users")
        try:
            rows = cassandra.get_conn().execute("SELECT country, users FROM users_by_country")
            return max(rows, key=lambda row: (row.users, row.country)).country  # type: ignore[no-any-return]
        finally:
            cassandra.shutdown_cluster()

    largest()
