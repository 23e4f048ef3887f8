"""confluent-kafka (librdkafka): `suite BROKER PREFIX`, `member BROKER TOPIC GROUP`, `idempotent BROKER TOPIC COUNT`."""

import signal
import sys
import time

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import OFFSET_BEGINNING
from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic,
                                   OffsetSpec)

from cases import BASE, check, samples, suite

command, broker, *args = sys.argv[1:]
admin = AdminClient({"bootstrap.servers": broker})


def done(futures):
    return {k: f.result(20) for k, f in futures.items()}


def create(topic, partitions=1, **config):
    done(admin.create_topics([NewTopic(topic, partitions, 1, config={k.replace("_", "."): v for k, v in config.items()})]))


def produce(topic, records, **config):
    errors = []
    p = Producer({"bootstrap.servers": broker, "message.max.bytes": 4_000_000, **config})
    for partition, (key, value, headers, timestamp) in records:
        p.produce(topic, value, key, partition, headers=headers, timestamp=timestamp, on_delivery=lambda e, m: e and errors.append(e))
        p.poll(0)
    check(p.flush(30), 0, "unsent")
    check(errors, [], "delivery errors")


def consumer(group="none", **config):
    return Consumer({"bootstrap.servers": broker, "group.id": group, "auto.offset.reset": "earliest",
                     "enable.auto.commit": False, "session.timeout.ms": 6000, **config})


def read(c, count, seconds=30):
    out, end = [], time.monotonic() + seconds
    while len(out) < count and time.monotonic() < end:
        m = c.poll(0.5)
        if m is None:
            continue
        if m.error():
            raise KafkaException(m.error())
        out.append(m)
    return out


def run_suite(prefix):
    def admin_calls():
        topic = f"{prefix}-admin"
        create(topic, 2, retention_ms="86400000")
        check(len(admin.list_topics(topic, 10).topics[topic].partitions), 2, "partitions")
        done(admin.create_partitions([NewPartitions(topic, 3)]))
        check(len(admin.list_topics(topic, 10).topics[topic].partitions), 3, "partitions after more")
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        check(done(admin.describe_configs([resource]))[resource]["retention.ms"].value, "86400000", "retention.ms")
        entry = ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET)
        changed = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        done(admin.incremental_alter_configs([changed]))
        check(done(admin.describe_configs([resource]))[resource]["retention.ms"].value, "3600000", "retention.ms after alter")
        check(len(admin.describe_cluster().result(10).nodes), 1, "nodes")
        try:
            create(topic, 2)
            raise AssertionError("a topic was created twice")
        except KafkaException as e:
            check(e.args[0].code(), KafkaError.TOPIC_ALREADY_EXISTS, "second create")
        done(admin.delete_topics([topic]))
        time.sleep(0.5)
        check(topic in admin.list_topics(timeout=10).topics, False, "deleted topic is listed")

    def codecs():
        for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
            topic = f"{prefix}-{codec}"
            create(topic, 1, max_message_bytes="2097152")
            wanted = samples()
            produce(topic, [(0, r) for r in wanted], **{"compression.type": codec})
            c = consumer()
            c.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
            got = read(c, len(wanted))
            c.close()
            check([m.offset() for m in got], list(range(len(wanted))), f"{codec} offsets")
            check([(m.key(), m.value(), m.headers() or [], m.timestamp()[1]) for m in got], wanted, codec)

    def offset_by_time():
        topic = f"{prefix}-times"
        create(topic, 1)
        produce(topic, [(0, (None, b"x", [], BASE + 1000 * i)) for i in range(10)])
        c = consumer()
        times = {"exact": BASE + 3000, "between": BASE + 3001, "before": BASE - 5}
        got = {n: c.offsets_for_times([TopicPartition(topic, 0, t)], 10)[0].offset for n, t in times.items()}
        check(got, {"exact": 3, "between": 4, "before": 0}, "offsets by time")
        past = c.offsets_for_times([TopicPartition(topic, 0, BASE + 99999)], 10)[0].offset
        check(past, -1, "offset past the end")
        check(c.get_watermark_offsets(TopicPartition(topic, 0), 10), (0, 10), "watermarks")
        c.close()
        at = TopicPartition(topic, 0)
        check(done(admin.list_offsets({at: OffsetSpec.max_timestamp()}))[at].offset, 9, "max timestamp")

    def groups():
        topic, group = f"{prefix}-groups", f"{prefix}-group"
        create(topic, 4)
        produce(topic, [(i % 4, (None, b"%d" % i, [], BASE)) for i in range(100)])
        seen = []
        for count in (50, 50):
            c = consumer(group)
            c.subscribe([topic])
            got = read(c, count)
            ends = {m.partition(): m.offset() + 1 for m in got}
            c.commit(offsets=[TopicPartition(topic, p, o, metadata="ours") for p, o in ends.items()], asynchronous=False)
            seen += [int(m.value()) for m in got]
            c.close()
        check(sorted(seen), list(range(100)), "records of the group")
        check(group in [g.group_id for g in admin.list_consumer_groups().result(10).valid], True, "listed")
        about = done(admin.describe_consumer_groups([group]))[group]
        check(about.state.name, "EMPTY", "state")
        wanted = ConsumerGroupTopicPartitions(group)
        offsets = done(admin.list_consumer_group_offsets([wanted]))[group].topic_partitions
        check(sorted((p.partition, p.offset, p.metadata) for p in offsets), [(i, 25, "ours") for i in range(4)], "committed")
        done(admin.delete_consumer_groups([group]))
        check(group in [g.group_id for g in admin.list_consumer_groups().result(10).valid], False, "listed after delete")

    def delete_records():
        topic = f"{prefix}-deleted"
        create(topic, 1)
        produce(topic, [(0, (None, b"x", [], BASE)) for _ in range(10)])
        low = done(admin.delete_records([TopicPartition(topic, 0, 4)]))
        check([r.low_watermark for r in low.values()], [4], "low watermark")
        c = consumer()
        c.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        check([m.offset() for m in read(c, 6)], [4, 5, 6, 7, 8, 9], "what is left")
        c.close()

    suite([admin_calls, codecs, offset_by_time, groups, delete_records])


def run_member(topic, group):
    c = consumer(group, **{"heartbeat.interval.ms": 500, "enable.auto.commit": True, "auto.commit.interval.ms": 200})
    running = [True]
    signal.signal(signal.SIGTERM, lambda *_: running.clear())
    c.subscribe([topic], on_assign=lambda _, ps: print("assigned", *sorted(p.partition for p in ps), flush=True))
    while running:
        m = c.poll(0.1)
        if m is not None and not m.error():
            print("record", m.partition(), m.offset(), m.value().decode(), flush=True)
    c.close()
    print("left", flush=True)


def run_idempotent(topic, count):
    p = Producer({"bootstrap.servers": broker, "enable.idempotence": True, "linger.ms": 2, "message.timeout.ms": 60000,
                  "reconnect.backoff.max.ms": 500})

    def acked(error, m):
        print("acked", m.partition(), m.offset(), m.value().decode(), flush=True) if not error else print("lost", error, flush=True)

    for i in range(count):
        p.produce(topic, b"%d" % i, partition=i % 4, on_delivery=acked)
        p.poll(0.001)
    check(p.flush(60), 0, "unsent")


if command == "suite":
    run_suite(*args)
elif command == "member":
    run_member(*args)
else:
    run_idempotent(args[0], int(args[1]))
