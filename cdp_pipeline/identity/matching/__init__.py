"""Fuzzy matching of people the identifiers leave apart: a model learned without labels, grades, a guard, reasons."""
