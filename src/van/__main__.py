"""`python -m van` and `torchrun -m van`: the command `van`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
