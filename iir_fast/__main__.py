"""``python -m iir_fast``, for launchers that start a module, and the command ``iir-fast``."""

import sys

from iir_fast.extras import needs_system


def main() -> None:
    """Run the command line; where it is not installed, say how to install it and end with exit status 2."""
    try:
        with needs_system("the command line"):
            from iir_fast.app import cli
    except ModuleNotFoundError as error:
        print(f"iir-fast: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
