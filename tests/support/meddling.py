"""Somebody else who comes in between."""

from collections.abc import Callable
from typing import Any, TypeVar

from scanning import wiring
from scanning.adapters.redis.connection import RedisConnection

T = TypeVar("T")


class MeddlingConnection(RedisConnection):
    """A connection on which ``meanwhile`` happens once, right after so many answers."""

    def __init__(self, meanwhile: Callable[[], Any], *, answers: int = 1) -> None:
        super().__init__(wiring.conf().redis)
        self._meanwhile, self._answers = meanwhile, answers

    def run(self, operation: Callable[[Any], T]) -> T:
        answer = super().run(operation)
        self._answers -= 1
        if self._answers == 0:
            self._meanwhile()
        return answer
