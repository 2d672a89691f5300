"""The application: the command line and what it is made of. The method, at the root, knows nothing of it."""
