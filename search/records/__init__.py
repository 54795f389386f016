"""What lies on disk: trials, bills, finalists trained again, and the run folder that holds them."""
