"""Model families: one folder each, none of which knows another."""
