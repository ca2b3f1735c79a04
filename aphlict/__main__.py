"""`python -m aphlict`."""

import sys

from aphlict.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
