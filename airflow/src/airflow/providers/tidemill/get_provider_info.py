"""What Airflow finds in this package."""

from __future__ import annotations

from typing import Any

NAME = "Tidemill"
PACKAGE = "airflow.providers.tidemill"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's parts, as `provider_info.schema.json` has them."""

    def modules(kind: str, module: str) -> list[dict[str, Any]]:
        return [{"integration-name": NAME, "python-modules": [f"{PACKAGE}.{kind}.{module}"]}]

    return {
        "package-name": "apache-airflow-providers-tidemill",
        "name": NAME,
        "description": "Tidemill keeps SQL views up to date in Cassandra.",
        "integrations": [{"integration-name": NAME, "tags": ["software"]}],
        "hooks": modules("hooks", "tidemill"),
        "operators": modules("operators", "ingest"),
        "sensors": modules("sensors", "views"),
        "triggers": modules("triggers", "views"),
        "connection-types": [
            {
                "connection-type": "tidemill",
                "hook-class-name": f"{PACKAGE}.hooks.tidemill.TidemillHook",
                "hook-name": NAME,
            }
        ],
        "asset-uris": [
            {
                "schemes": ["tidemill"],
                "handler": f"{PACKAGE}.assets.sanitize_uri",
                "factory": f"{PACKAGE}.assets.create_asset",
            }
        ],
    }
