"""Steps of the schema, one numbered module each."""
