"""From samples to speech: the pipeline, streams, recordings, folders, the microphone."""
