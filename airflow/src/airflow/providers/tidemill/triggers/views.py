"""The trigger of the sensor for views."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow.providers.tidemill.hooks.tidemill import (
    Question,
    TidemillAway,
    TidemillHook,
    TidemillRefused,
)


class TidemillViewsTrigger(BaseTrigger):
    """Fires when everything that was committed before is in every view of a job, or never will be.

    What is kept between two triggerers is the question alone: the master and the job's processes
    keep nothing, so any of them may start again meanwhile.

    :param tidemill_conn_id: the connection
    :param job: the job's name
    :param lsn: everything before this place in the database; else what is committed now
    :param committed_before: or what is committed before this time, in ISO 8601 with an offset
    :param ends: how far the waiting is
    :param poke_interval: seconds between two questions
    """

    def __init__(
        self,
        *,
        tidemill_conn_id: str,
        job: str,
        lsn: str | None = None,
        committed_before: str | None = None,
        ends: dict[str, dict[str, int]] | None = None,
        poke_interval: float = 1.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tidemill_conn_id = tidemill_conn_id
        self.question = Question(job, lsn, committed_before, ends)
        self.poke_interval = poke_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what it is made of."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "tidemill_conn_id": self.tidemill_conn_id,
                "job": self.question.job,
                "lsn": self.question.lsn,
                "committed_before": self.question.committed_before,
                "ends": self.question.ends,
                "poke_interval": self.poke_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask until it is answered."""
        question, said = self.question, None
        async with await TidemillHook(self.tidemill_conn_id).aget_conn() as client:
            while True:
                try:
                    answer = await TidemillHook.areadable(client, question)
                except TidemillAway as error:
                    waits_for: str | None = str(error)
                except (TidemillRefused, ValueError) as error:
                    yield TriggerEvent({"error": str(error)})
                    return
                else:
                    if answer.readable:
                        yield TriggerEvent(answer.result)
                        return
                    if answer.ended is not None:
                        yield TriggerEvent({"error": answer.ended})
                        return
                    question, waits_for = question.after(answer), answer.waits_for
                if waits_for != said:
                    self.log.info("%s: %s", question.job, waits_for)
                    said = waits_for
                await asyncio.sleep(self.poke_interval)
