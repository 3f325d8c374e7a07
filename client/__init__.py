"""The service from outside: an SDK, and the command `disp`."""
