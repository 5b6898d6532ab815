"""`python -m examples.strict_upstream`."""

import sys

from examples.strict_upstream.run import main

if __name__ == "__main__":
    sys.exit(main())
