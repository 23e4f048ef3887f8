"""The 32 behaviours that clients rely on, each by number, over a raw socket. What a real Kafka 4 does differently is said
where it is; everything else must hold on both."""
