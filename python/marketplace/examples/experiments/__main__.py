"""``python -m marketplace.examples.experiments``."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
