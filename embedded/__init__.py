"""Everything in one process: the functions, the page, the engine, and stand-ins for the services that are not set."""
