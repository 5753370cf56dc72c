"""SDNet's job: one file becomes patches, a trained network and its evaluation, on the engine."""
