"""`make chaos`: one run, and what it shows. The exit status is 0 if every promise held."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bucketwatch.local.environment import without_product_variables
from scanning.runtime.processes import die_with_parent
from tests.chaos.run import Run

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from tests.chaos.run import Outcome

SHOWN = 20  # violations; the rest is in the directory


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="of changes, kills and faults")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--with-parent", action="store_true", help="stop when the caller ends")
    options = parser.parse_args(arguments)
    if options.with_parent:
        die_with_parent(os.getppid(), signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    _forget_the_product()
    directory = Path(tempfile.mkdtemp(prefix="bucketwatch-chaos-"))
    say(f"seed {options.seed}, {options.seconds:g} s; its files are in {directory} …")
    run = Run(directory, seconds=options.seconds, seed=options.seed)
    outcome = run.run()
    show(outcome)
    if outcome.ok:
        shutil.rmtree(directory)
        return 0
    save(directory, outcome, run)
    say(f"What it did is in {directory}; SEED={options.seed} does the same again")
    return 1


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def show(outcome: Outcome) -> None:
    """The figures, and the first of what does not hold."""
    verdict, consumer = outcome.verdict, outcome.consumer
    for violation in [*verdict.violations, *consumer.verdict.violations][:SHOWN]:
        say(str(violation))
    for problem in outcome.problems:
        say(problem)
    say(f"lost {len(verdict.lost)}")
    say(f"duplicated {len(verdict.duplicated)}")
    say(f"false {len(verdict.false)}")
    say(f"wrong {len(verdict.wrong) + len(outcome.problems)}")
    say(f"kills {_added_up(outcome.killed)}")
    say(f"failovers {outcome.failovers}")
    say(f"events {outcome.events} of {outcome.changes} changes")
    say(f"frozen {_added_up(outcome.frozen)}")
    say(f"S3 faults {outcome.faults}")
    say(f"API requests {_added_up(outcome.operator)}")
    say(f"hints {_added_up(outcome.hints)}")
    say(
        f"consumer: violations {len(consumer.verdict.violations)}, repeated {consumer.repeated}, "
        f"forgotten {consumer.forgotten}"
    )


def _added_up(counted: Counter[str]) -> str:
    kinds = ", ".join(f"{kind} {times}" for kind, times in counted.most_common())
    return f"{counted.total()} ({kinds})" if counted else "0"


def save(directory: Path, outcome: Outcome, run: Run) -> None:
    """Everything that helps to understand a violation, beside the logs."""
    violations = [*outcome.verdict.violations, *outcome.consumer.verdict.violations]
    (directory / "violations.txt").write_text("\n".join(map(str, violations)), encoding="utf-8")
    histories = [[*place, states] for place, states in run.world.histories.items()]
    (directory / "histories.json").write_text(json.dumps(histories), encoding="utf-8")


def _forget_the_product() -> None:
    """Nobody's settings reach what is started from here."""
    environ = without_product_variables(os.environ)
    os.environ.clear()
    os.environ.update(environ)


if __name__ == "__main__":
    sys.exit(main())
