"""Data-poisoning attacks: trigger x target x poisoning rate, each ignorant of the others."""
