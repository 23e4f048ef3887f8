"""What every end-to-end test stands on: the broker as a process, Kafka's bytes, and the machine's tools."""
