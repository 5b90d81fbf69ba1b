"""`python -m trials.floods` starts here."""

import signal
import sys

from trials.floods.run import main

if __name__ == "__main__":
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # a terminated run takes its lab down like an interrupted one
    sys.exit(main())
