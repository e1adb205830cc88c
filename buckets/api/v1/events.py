"""/api/v1/events/: what happened lately, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.response import Response
from rest_framework.views import APIView

from buckets.api.v1 import parsing, requests, responses, schema
from scanning import wiring

if TYPE_CHECKING:
    from rest_framework.request import Request

NOTE = (
    "This is a window on the last commits, not the record of all events: older ones are gone from "
    "here, and of a commit with many events the first ones are listed. The queue has them all."
)


class Events(APIView):
    @schema.LIST_EVENTS
    def get(self, request: Request) -> Response:
        filters = parsing.query(requests.EventQuery, request)
        window = wiring.interactive().recent_events.read(
            limit=filters["limit"],
            bucket=filters.get("bucket", ""),
            event_type=filters.get("type", ""),
            prefix=filters.get("prefix", ""),
        )
        about = {"since": window.since, "not_listed": window.not_listed, "note": NOTE}
        return Response(responses.EventsAnswer({"window": about, "results": window.events}).data)
