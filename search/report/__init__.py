"""Tables, pictures and the report page of a run; README.md in this folder lists the modules."""
