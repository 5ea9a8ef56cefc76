"""`python -m cli` is `simclr`, where the console script isn't installed."""

import sys

from cli.main import main

if __name__ == "__main__":
    sys.exit(main())
