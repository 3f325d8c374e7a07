"""What is measured before and after: attack success and clean performance."""
