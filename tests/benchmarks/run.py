"""The benchmark in one command: `python tests/benchmarks/run.py [--quick]`; see README.md.

Makes the environments, then goes on in the one of mailqueue. Exit code 0: every target is met;
1: some are not; 2: it could not be measured.
"""

from __future__ import annotations

import os
import sys

import lab
import options


def main() -> None:
    """Prepare, then become the benchmark."""
    folder = options.parse().folder
    try:
        lab.prepare(folder)
    except lab.Missing as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    interpreter = lab.python(folder, "ours")
    os.execv(interpreter, [interpreter, str(lab.HERE / "measure.py"), *sys.argv[1:]])


main()
