"""Carbon in time: forecasts price the joules of their hour, and large trainings wait for clean hours."""
