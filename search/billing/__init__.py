"""Which trial which joule belongs to, and the bill that adds up to the ledger's total."""
