"""Where the server starts, away from `pages/`."""
