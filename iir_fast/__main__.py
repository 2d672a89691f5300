"""``python -m iir_fast``, for launchers that start a module: what the command ``iir-fast`` does."""

from iir_fast.app.cli import main

if __name__ == "__main__":
    main()
