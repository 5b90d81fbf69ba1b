"""`python -m trials.fuzz` starts here."""

import sys

from trials.fuzz.run import main

if __name__ == "__main__":
    sys.exit(main())
