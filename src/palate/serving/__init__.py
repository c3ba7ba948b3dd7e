"""What answers: the snapshot, restricted retrieval, the pipeline, the API."""
