"""What gunicorn itself has to say, as JSON like everything else."""

from __future__ import annotations

from typing import Any

from gunicorn.glogging import Logger

from scanning.logs import json_formatter


class JsonLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(json_formatter())
