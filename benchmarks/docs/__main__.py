"""`python -m benchmarks.docs`."""

import sys

from benchmarks.docs import main

if __name__ == "__main__":
    sys.exit(main())
