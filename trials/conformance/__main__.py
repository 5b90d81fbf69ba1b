"""`python -m trials.conformance` starts here."""

import sys

from trials.conformance.table import main

if __name__ == "__main__":
    sys.exit(main())
