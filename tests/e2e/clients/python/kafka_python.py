"""kafka-python: `suite BROKER PREFIX`, `member BROKER TOPIC GROUP`, `idempotent BROKER TOPIC COUNT`."""

import signal
import sys
import time

from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAlreadyExistsError

from cases import BASE, check, samples, suite

command, broker, *args = sys.argv[1:]


def create(admin, topic, partitions=1, **config):
    configs = {k.replace("_", "."): v for k, v in config.items()}
    admin.create_topics({topic: {"num_partitions": partitions, "replication_factor": 1, "configs": configs}})


def produce(topic, records, **config):
    p = KafkaProducer(bootstrap_servers=broker, max_request_size=4_000_000, **config)
    sent = [p.send(topic, value, key, headers, partition, timestamp) for partition, (key, value, headers, timestamp) in records]
    p.flush(30)
    offsets = [f.get(10).offset for f in sent]
    p.close()
    return offsets


def consumer(group=None, **config):
    return KafkaConsumer(bootstrap_servers=broker, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
                         session_timeout_ms=6000, heartbeat_interval_ms=500, **config)


def read(c, count, seconds=30):
    out, end = [], time.monotonic() + seconds
    while len(out) < count and time.monotonic() < end:
        for records in c.poll(500, max_records=count - len(out)).values():
            out += records
    return out


def run_suite(prefix):
    admin = KafkaAdminClient(bootstrap_servers=broker)

    def admin_calls():
        topic = f"{prefix}-admin"
        create(admin, topic, 2, retention_ms="86400000")
        check(len(admin.describe_topics([topic])[0]["partitions"]), 2, "partitions")
        admin.create_partitions({topic: 3})
        check(len(admin.describe_topics([topic])[0]["partitions"]), 3, "partitions after more")

        def retention():
            found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": None})])
            (by_name,) = found.values()
            return by_name[topic]["retention.ms"]["value"]

        check(retention(), "86400000", "retention.ms")
        for incremental, value in ((True, "3600000"), (False, "7200000")):
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": value})], incremental=incremental)
            check(retention(), value, f"retention.ms after alter, incremental={incremental}")
        check(len(admin.describe_cluster()["brokers"]), 1, "brokers")
        check(bool(admin.describe_log_dirs()), True, "log dirs")
        try:
            create(admin, topic, 2)
            raise AssertionError("a topic was created twice")
        except TopicAlreadyExistsError:
            pass
        admin.delete_topics([topic])
        time.sleep(0.5)
        check(topic in admin.list_topics(), False, "deleted topic is listed")

    def codecs():
        for codec in (None, "gzip", "snappy", "lz4", "zstd"):
            topic = f"{prefix}-{codec or 'none'}"
            create(admin, topic, 1, max_message_bytes="2097152")
            wanted = samples()
            check(produce(topic, [(0, r) for r in wanted], compression_type=codec), list(range(len(wanted))), f"{codec} offsets")
            c = consumer()
            c.assign([TopicPartition(topic, 0)])
            got = read(c, len(wanted))
            c.close()
            check([(m.key, m.value, list(m.headers), m.timestamp) for m in got], wanted, codec)

    def offset_by_time():
        topic = f"{prefix}-times"
        create(admin, topic, 1)
        produce(topic, [(0, (None, b"x", [], BASE + 1000 * i)) for i in range(10)])
        c = consumer()
        at = TopicPartition(topic, 0)
        times = {"exact": BASE + 3000, "between": BASE + 3001, "before": BASE - 5}
        got = {n: c.offsets_for_times({at: t})[at].offset for n, t in times.items()}
        check(got, {"exact": 3, "between": 4, "before": 0}, "offsets by time")
        check(c.offsets_for_times({at: BASE + 99999})[at], None, "offset past the end")
        check((c.beginning_offsets([at])[at], c.end_offsets([at])[at]), (0, 10), "first and last")
        c.close()

    def groups():
        topic, group = f"{prefix}-groups", f"{prefix}-group"
        create(admin, topic, 4)
        produce(topic, [(i % 4, (None, b"%d" % i, [], BASE)) for i in range(100)])
        seen = []
        for count in (50, 50):
            c = consumer(group)
            c.subscribe([topic])
            got = read(c, count)
            ends = {TopicPartition(topic, m.partition): m.offset + 1 for m in got}
            c.commit({tp: OffsetAndMetadata(o, "ours", -1) for tp, o in ends.items()})
            seen += [int(m.value) for m in got]
            c.close()
        check(sorted(seen), list(range(100)), "records of the group")
        check(group in [g["group_id"] for g in admin.list_groups()], True, "listed")
        check(admin.describe_groups([group])[group]["group_state"], "Empty", "state")
        offsets = admin.list_group_offsets({group: None})[group]
        check(sorted((tp.partition, o.offset, o.metadata) for tp, o in offsets.items()), [(i, 25, "ours") for i in range(4)],
              "committed")
        check(admin.delete_groups([group]), {group: "OK"}, "delete")

    def delete_records():
        topic = f"{prefix}-deleted"
        create(admin, topic, 1)
        produce(topic, [(0, (None, b"x", [], BASE)) for _ in range(10)])
        admin.delete_records({TopicPartition(topic, 0): 4})
        c = consumer()
        c.assign([TopicPartition(topic, 0)])
        check([m.offset for m in read(c, 6)], [4, 5, 6, 7, 8, 9], "what is left")
        c.close()

    suite([admin_calls, codecs, offset_by_time, groups, delete_records])
    admin.close()


class Say(ConsumerRebalanceListener):
    def on_partitions_assigned(self, assigned):
        print("assigned", *sorted(tp.partition for tp in assigned), flush=True)

    def on_partitions_revoked(self, revoked):
        pass


def run_member(topic, group):
    c = KafkaConsumer(bootstrap_servers=broker, group_id=group, auto_offset_reset="earliest", auto_commit_interval_ms=200,
                      session_timeout_ms=6000, heartbeat_interval_ms=500)
    running = [True]
    signal.signal(signal.SIGTERM, lambda *_: running.clear())
    c.subscribe([topic], listener=Say())
    while running:
        for records in c.poll(100).values():
            for m in records:
                print("record", m.partition, m.offset, m.value.decode(), flush=True)
    c.close()
    print("left", flush=True)


def run_idempotent(topic, count):
    p = KafkaProducer(bootstrap_servers=broker, enable_idempotence=True, linger_ms=2, reconnect_backoff_max_ms=500,
                      delivery_timeout_ms=60000, request_timeout_ms=10000)

    def acked(value):
        return lambda m: print("acked", m.partition, m.offset, value, flush=True)

    for i in range(count):
        future = p.send(topic, b"%d" % i, partition=i % 4)
        future.add_callback(acked(i))
        future.add_errback(lambda e: print("lost", e, flush=True))
        time.sleep(0.0005)
    p.flush(60)
    p.close()


if command == "suite":
    run_suite(*args)
elif command == "member":
    run_member(*args)
else:
    run_idempotent(args[0], int(args[1]))
