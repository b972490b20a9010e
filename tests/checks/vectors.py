"""The test vectors on disk are what the independent reference computes today."""
import os
import sys

import common


def main():
    generator = sys.argv[1]
    try:
        import mpmath  # noqa: F401
    except ImportError:
        common.skip("needs python3-mpmath")
    if not os.path.exists(generator):
        common.skip("there is no generator")
    result = common.run([sys.executable, generator, "--check"])
    print(result.stdout + result.stderr)
    sys.exit(result.returncode)


main()
