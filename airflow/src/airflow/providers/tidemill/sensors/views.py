"""The sensor for views."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException

from airflow.providers.tidemill.assets import view_assets
from airflow.providers.tidemill.hooks.tidemill import (
    Question,
    Readable,
    TidemillAway,
    TidemillHook,
)
from airflow.providers.tidemill.triggers.views import TidemillViewsTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class TidemillViewsSensor(BaseSensorOperator):
    """Waits until everything that was committed before is readable in every view of a job.

    Returns the place in the database and the epoch that shows it, as `lsn` and `epoch`. Each of
    `views` is an asset that this task updates, with both in the event's extra.

    :param job: the job's name
    :param lsn: everything that was committed before this place, as the ingest operator returns it;
        else what is committed when the task runs
    :param committed_before: or what is committed before this time, in ISO 8601 with an offset
    :param views: the views that are assets
    :param tidemill_conn_id: the connection
    :param deferrable: whether a triggerer waits instead of a worker
    """

    template_fields: Sequence[str] = ("job", "lsn", "committed_before")
    ui_color = "#8fb8c9"

    def __init__(
        self,
        *,
        job: str,
        lsn: str | None = None,
        committed_before: str | None = None,
        views: Sequence[str] = (),
        tidemill_conn_id: str = TidemillHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: float = 1.0,
        **kwargs: Any,
    ) -> None:
        assets = view_assets(job, views)
        outlets = [*kwargs.pop("outlets", []), *assets]
        super().__init__(poke_interval=poke_interval, outlets=outlets, **kwargs)
        if self.reschedule and not deferrable and lsn is None and committed_before is None:
            raise ValueError(
                "mode='reschedule' begins anew each time: give `lsn` or `committed_before`, "
                "or deferrable=True"
            )
        self.job = job
        self.lsn = lsn
        self.committed_before = committed_before
        self.views = views
        self.assets = assets
        self.tidemill_conn_id = tidemill_conn_id
        self.deferrable = deferrable
        self._question: Question | None = None

    def execute(self, context: Context) -> Any:
        """Wait, here or in a triggerer."""
        if not self.deferrable:
            result = super().execute(context)
            self._tell(context, result)
            return result
        answer = self._ask()
        if answer is not None and answer.readable:
            self._tell(context, answer.result)
            return answer.result
        question = self._question or self._first()
        self.defer(
            timeout=timedelta(seconds=self.timeout),
            trigger=TidemillViewsTrigger(
                tidemill_conn_id=self.tidemill_conn_id,
                job=question.job,
                lsn=question.lsn,
                committed_before=question.committed_before,
                ends=question.ends,
                poke_interval=self.poke_interval,
            ),
            method_name="execute_complete",
        )
        return None

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Take what the trigger found."""
        if "error" in event:
            raise AirflowException(event["error"])
        self._tell(context, event)
        return event

    def poke(self, context: Context) -> PokeReturnValue:
        """Ask once."""
        answer = self._ask()
        if answer is None or not answer.readable:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=answer.result)

    def _first(self) -> Question:
        return Question(self.job, self.lsn or None, self.committed_before or None)

    def _ask(self) -> Readable | None:
        """Ask once; none when nobody can tell now."""
        question = self._question or self._first()
        try:
            answer = TidemillHook(self.tidemill_conn_id).readable(question)
        except TidemillAway as error:
            self.log.info("%s", error)
            return None
        if answer.ended is not None:
            raise AirflowException(answer.ended)
        if not answer.readable:
            self.log.info("%s: %s", self.job, answer.waits_for)
        self._question = question.after(answer)
        return answer

    def _tell(self, context: Context, result: dict[str, Any]) -> None:
        """Say in the assets' events what the views show."""
        for asset in self.assets:
            context["outlet_events"][asset].extra.update(result)
