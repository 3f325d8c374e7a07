"""The real parts of a deployment, started on free ports of this machine.

Each is a class with `start`, `stop` and `kill` (its data and its port survive these), and a
context manager around it for those who only need it to be there.
"""
