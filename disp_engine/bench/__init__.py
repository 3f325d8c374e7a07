"""Every table and figure of the DiSP paper, cell by cell, on any model and dataset."""
