"""Assets: one for each view of a job, `tidemill://JOB/VIEW`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

if TYPE_CHECKING:
    from urllib.parse import SplitResult


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Accept `tidemill://JOB/VIEW` alone."""
    view = uri.path.removeprefix("/")
    if not uri.netloc or not view or "/" in view or uri.query or uri.fragment:
        raise ValueError(f"{uri.geturl()}: expected tidemill://JOB/VIEW")
    return uri._replace(scheme="tidemill")


def create_asset(*, job: str, view: str, extra: dict[str, Any] | None = None) -> Asset:
    """Return the asset of a view."""
    return Asset(name=f"{job}.{view}", uri=f"tidemill://{job}/{view}", extra=extra or {})


def view_assets(job: str, views: Iterable[str]) -> list[Asset]:
    """Return an asset for each of a job's views."""
    return [create_asset(job=job, view=view) for view in views]
