"""The way of a trial: ask, train under the ledger, tell, until the budget or the marginal gain ends it."""
