"""The doctor: asks every host what a job will meet there, and says what is wrong before it starts."""
