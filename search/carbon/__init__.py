"""What joules emit and cost: the intensity of a place, now or by the hour of a forecast, and prices."""
