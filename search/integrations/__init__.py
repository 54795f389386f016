"""The meter, the sampler and the limits inside other people's programs: one file each, which imports its library only when it is used."""
