"""Another engine samples: a server of the OpenAI protocol, started for a model and ended again, or one that is there."""
