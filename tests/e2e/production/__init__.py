"""A production deployment of real parts on one machine, and the chaos that it has to stand."""
