"""The librdkafka load: producers and consumers as the clients of a broker run them, with librdkafka's own settings but for
what is named. Run by the driver in an interpreter that has confluent-kafka; prints `start` and `end` around its counted part
and then one line of JSON."""

import argparse
import json
import select
import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition, libversion
from confluent_kafka.admin import AdminClient, NewTopic


class Rtt:
    """librdkafka's own measure of a request: from its write to its answer, by second; buffered time before it not included."""

    def __init__(self):
        self.on, self.windows = False, []

    def __call__(self, text):
        if self.on:
            for broker in json.loads(text)["brokers"].values():
                if broker["rtt"]["cnt"] and broker["nodeid"] >= 0:
                    self.windows.append(broker["rtt"])

    def figures(self):
        """The middle of the windows' medians, and the middle of their 99th percentiles."""
        if not self.windows:
            return {}
        middle = lambda name: sorted(w[name] for w in self.windows)[len(self.windows) // 2] / 1e3
        return {"p50_ms": middle("p50"), "p99_ms": middle("p99"), "max_ms": max(w["max"] for w in self.windows) / 1e3}


def topic(args):
    admin = AdminClient({"bootstrap.servers": args.address})
    config = dict(pair.split("=", 1) for pair in args.config)
    for future in admin.create_topics([NewTopic(args.topic, args.partitions, 1, config=config)], operation_timeout=60).values():
        future.result()
    end = time.monotonic() + 30
    while time.monotonic() < end:
        told = admin.list_topics(args.topic, timeout=10).topics[args.topic]
        if len(told.partitions) == args.partitions and all(p.leader >= 0 for p in told.partitions.values()):
            return {}
        time.sleep(0.1)
    raise SystemExit("the topic has no leaders after 30 s")


def forget(args):
    admin = AdminClient({"bootstrap.servers": args.address})
    for future in admin.delete_topics([args.topic], operation_timeout=60).values():
        future.result()
    return {}


def produce(args):
    rtt, failed = Rtt(), []
    producer = Producer({
        "bootstrap.servers": args.address, "acks": "all", "linger.ms": args.linger, "batch.size": 65536,
        "batch.num.messages": 100000, "compression.type": "none", "statistics.interval.ms": 1000, "stats_cb": rtt,
        # Only errors call back: a callback for each record would make the load the slowest part.
        "delivery.report.only.error": True, "on_delivery": lambda error, _: failed.append(str(error)),
    })
    value = bytes(range(256)) * (args.value // 256) + bytes(args.value % 256)

    def until(seconds, bytes_max=None):
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end and (bytes_max is None or count * args.value < bytes_max):
            try:
                for _ in range(1000):
                    producer.produce(args.topic, value)
                    count += 1
            except BufferError:
                producer.poll(0.005)
            producer.poll(0)
        return count

    until(args.warm_up)
    producer.flush(60)
    print("start", flush=True)
    rtt.on, begin = True, time.monotonic()
    count = until(args.seconds, args.bytes)
    left = producer.flush(120)
    seconds = time.monotonic() - begin
    print("end", flush=True)
    if failed or left:
        raise SystemExit(f"{len(failed)} records failed ({failed[:1]}), {left} were not answered")
    return {"records": count, "bytes": count * args.value, "seconds": seconds, **rtt.figures()}


def paced(args):
    """One record at a time, at a rate, each timed from its hand-over to its acknowledgement."""
    taken, failed = [], []

    def done(error, message):
        failed.append(str(error)) if error else taken.append(message.latency())

    producer = Producer({"bootstrap.servers": args.address, "acks": "all", "linger.ms": 0, "compression.type": "none"})
    value = bytes(args.value)

    def until(seconds):
        begin = time.monotonic()
        for index in range(int(seconds * args.rate)):
            while (wait := begin + index / args.rate - time.monotonic()) > 0:
                producer.poll(wait)
            producer.produce(args.topic, value, partition=0, on_delivery=done)
            producer.poll(0)
        producer.flush(60)

    until(args.warm_up)
    taken.clear()
    print("start", flush=True)
    begin = time.monotonic()
    until(args.seconds)
    seconds = time.monotonic() - begin
    print("end", flush=True)
    if failed:
        raise SystemExit(f"{len(failed)} records failed: {failed[0]}")
    taken.sort()
    at = lambda part: taken[int((len(taken) - 1) * part)] * 1e3
    return {"records": len(taken), "bytes": len(taken) * args.value, "seconds": seconds,
            "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1)}


def consume(args):
    """Reads every partition from its beginning, again and again."""
    rtt = Rtt()
    consumer = Consumer({
        "bootstrap.servers": args.address, "group.id": "bench", "enable.auto.commit": False, "statistics.interval.ms": 1000,
        "stats_cb": rtt, "enable.partition.eof": True,
    })
    whole = [TopicPartition(args.topic, p, 0) for p in range(args.partitions)]
    consumer.assign(whole)
    at_end = set()

    def until(seconds):
        bytes_read, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            for message in consumer.consume(5000, 0.2):
                if message.error():
                    if message.error().name() != "_PARTITION_EOF":
                        raise SystemExit(f"consume: {message.error()}")
                    at_end.add(message.partition())
                else:
                    bytes_read += len(message)
            if len(at_end) == args.partitions:
                at_end.clear()
                consumer.assign(whole)
        return bytes_read

    until(args.warm_up)
    print("ready", flush=True)
    # Consumers that are measured side by side begin together, when the driver has heard from all of them.
    while not select.select([sys.stdin], [], [], 0)[0]:
        until(0.1)
    print("start", flush=True)
    rtt.on, begin = True, time.monotonic()
    bytes_read = until(args.seconds)
    seconds = time.monotonic() - begin
    print("end", flush=True)
    # Nobody leaves while another one's end is awaited: a thread that ends takes its counters with it.
    sys.stdin.read()
    consumer.close()
    return {"bytes": bytes_read, "seconds": seconds, **rtt.figures()}


def main():
    parser = argparse.ArgumentParser()
    verbs = {"topic": topic, "forget": forget, "produce": produce, "paced": paced, "consume": consume}
    parser.add_argument("verb", choices=[*verbs, "version"])
    parser.add_argument("--address")
    parser.add_argument("--topic")
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument("--config", action="append", default=[])
    parser.add_argument("--value", type=int, default=1024)
    parser.add_argument("--linger", type=float, default=5)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--bytes", type=int)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--warm-up", type=float, default=3)
    args = parser.parse_args()
    print(json.dumps({"librdkafka": libversion()[0]} if args.verb == "version" else verbs[args.verb](args)))


if __name__ == "__main__":
    main()
