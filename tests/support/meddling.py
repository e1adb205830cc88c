"""Somebody else who comes in between."""

from collections.abc import Callable
from typing import Any, TypeVar

from scanning import wiring
from scanning.adapters.redis.connection import RedisConnection

T = TypeVar("T")


class MeddlingConnection(RedisConnection):
    """A connection on which ``meanwhile`` happens once, right after the first answer."""

    def __init__(self, meanwhile: Callable[[], Any]) -> None:
        super().__init__(wiring.conf().redis)
        self._meanwhile: Callable[[], Any] | None = meanwhile

    def run(self, operation: Callable[[Any], T]) -> T:
        answer = super().run(operation)
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile:
            meanwhile()
        return answer
