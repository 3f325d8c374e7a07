"""The CPU's bars, one file for each: a function from a bench to lines."""
