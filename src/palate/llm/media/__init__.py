"""Pictures and films beside the texts: what is shown of them to a model. Needs the extra `media`."""
