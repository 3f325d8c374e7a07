"""The commands of `disp`, a file for each group; heavy imports stand inside the commands."""
