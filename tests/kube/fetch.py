"""Fetches a URL in the cluster's network: `-m tests.kube.fetch URL`."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request


def main() -> int:
    """Print the status on the first line, and then the body; an error has a body too."""
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=10) as response:
            status, body = response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read().decode()
    except OSError as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    print(f"{status}\n{body}", end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
