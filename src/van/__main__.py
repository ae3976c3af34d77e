"""`python -m van` is the `van` command."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
