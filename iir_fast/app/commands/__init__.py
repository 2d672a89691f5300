"""One file per command: what it is asked, and what it does with it."""
