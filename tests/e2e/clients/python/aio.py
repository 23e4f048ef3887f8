"""aiokafka: `suite BROKER PREFIX`, `member BROKER TOPIC GROUP`, `idempotent BROKER TOPIC COUNT`."""

import asyncio
import signal
import sys
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import OffsetAndMetadata

from cases import BASE, check, samples, suite

command, broker, *args = sys.argv[1:]
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
run = loop.run_until_complete


async def create(admin, topic, partitions=1, **config):
    configs = {k.replace("_", "."): v for k, v in config.items()}
    answer = await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])
    return answer.topic_errors[0][1]


async def produce(topic, records, **config):
    async with AIOKafkaProducer(bootstrap_servers=broker, max_request_size=4_000_000, **config) as p:
        sent = [await p.send(topic, value, key, partition, timestamp, headers) for partition, (key, value, headers, timestamp) in records]
        return [m.offset for m in await asyncio.gather(*sent)]


def consumer(*topics, group=None, **config):
    config = {"enable_auto_commit": False, **config}
    return AIOKafkaConsumer(*topics, bootstrap_servers=broker, group_id=group, auto_offset_reset="earliest",
                            session_timeout_ms=6000, heartbeat_interval_ms=500, metadata_max_age_ms=2000, **config)


async def read(c, count, seconds=30):
    out, end = [], time.monotonic() + seconds
    while len(out) < count and time.monotonic() < end:
        for records in (await c.getmany(timeout_ms=500, max_records=count - len(out))).values():
            out += records
    return out


def run_suite(prefix):
    async def admin_calls(admin):
        topic = f"{prefix}-admin"
        check(await create(admin, topic, 2, retention_ms="86400000"), 0, "create")
        check(len((await admin.describe_topics([topic]))[0]["partitions"]), 2, "partitions")
        await admin.create_partitions({topic: NewPartitions(3)})
        check(len((await admin.describe_topics([topic]))[0]["partitions"]), 3, "partitions after more")

        async def retention():
            (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
            return {c[0]: c[1] for c in answer.resources[0][4]}["retention.ms"]

        check(await retention(), "86400000", "retention.ms")
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "3600000"})])
        check(await retention(), "3600000", "retention.ms after alter")
        check(len((await admin.describe_cluster())["brokers"]), 1, "brokers")
        check(await create(admin, topic, 2), 36, "second create")
        await admin.delete_topics([topic])
        await asyncio.sleep(0.5)
        check(topic in await admin.list_topics(), False, "deleted topic is listed")

    async def codecs(admin):
        for codec in (None, "gzip", "snappy", "lz4", "zstd"):
            topic = f"{prefix}-{codec or 'none'}"
            await create(admin, topic, 1, max_message_bytes="2097152")
            wanted = samples()
            check(await produce(topic, [(0, r) for r in wanted], compression_type=codec), list(range(len(wanted))), f"{codec} offsets")
            async with consumer() as c:
                c.assign([TopicPartition(topic, 0)])
                got = await read(c, len(wanted))
            check([(m.key, m.value, list(m.headers), m.timestamp) for m in got], wanted, codec)

    async def offset_by_time(admin):
        topic = f"{prefix}-times"
        await create(admin, topic, 1)
        await produce(topic, [(0, (None, b"x", [], BASE + 1000 * i)) for i in range(10)])
        at = TopicPartition(topic, 0)
        async with consumer() as c:
            times = {"exact": BASE + 3000, "between": BASE + 3001, "before": BASE - 5}
            got = {n: (await c.offsets_for_times({at: t}))[at].offset for n, t in times.items()}
            check(got, {"exact": 3, "between": 4, "before": 0}, "offsets by time")
            check((await c.offsets_for_times({at: BASE + 99999}))[at], None, "offset past the end")
            check(((await c.beginning_offsets([at]))[at], (await c.end_offsets([at]))[at]), (0, 10), "first and last")

    async def groups(admin):
        topic, group = f"{prefix}-groups", f"{prefix}-group"
        await create(admin, topic, 4)
        await produce(topic, [(i % 4, (None, b"%d" % i, [], BASE)) for i in range(100)])
        seen = []
        for count in (50, 50):
            async with consumer(topic, group=group) as c:
                got = await read(c, count)
                ends = {TopicPartition(topic, m.partition): OffsetAndMetadata(m.offset + 1, "ours") for m in got}
                await c.commit(ends)
                seen += [int(m.value) for m in got]
        check(sorted(seen), list(range(100)), "records of the group")
        check(group in [g[0] for g in await admin.list_consumer_groups()], True, "listed")
        (answer,) = await admin.describe_consumer_groups([group])
        check(answer.groups[0][2], "Empty", "state")
        offsets = await admin.list_consumer_group_offsets(group)
        check(sorted((tp.partition, o.offset, o.metadata) for tp, o in offsets.items()), [(i, 25, "ours") for i in range(4)],
              "committed")

    async def delete_records(admin):
        topic = f"{prefix}-deleted"
        await create(admin, topic, 1)
        await produce(topic, [(0, (None, b"x", [], BASE)) for _ in range(10)])
        check(await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(4)}), {TopicPartition(topic, 0): 4}, "low watermark")
        async with consumer() as c:
            c.assign([TopicPartition(topic, 0)])
            check([m.offset for m in await read(c, 6)], [4, 5, 6, 7, 8, 9], "what is left")

    def case(test):
        async def whole():
            admin = AIOKafkaAdminClient(bootstrap_servers=broker)
            await admin.start()
            try:
                await test(admin)
            finally:
                await admin.close()

        def step():
            run(whole())

        step.__name__ = test.__name__
        return step

    suite([case(t) for t in (admin_calls, codecs, offset_by_time, groups, delete_records)])


class Say(ConsumerRebalanceListener):
    def on_partitions_assigned(self, assigned):
        print("assigned", *sorted(tp.partition for tp in assigned), flush=True)

    def on_partitions_revoked(self, revoked):
        pass


async def run_member(topic, group):
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    c = consumer(group=group, enable_auto_commit=True, auto_commit_interval_ms=200)
    c.subscribe([topic], listener=Say())
    async with c:
        while not stop.is_set():
            for records in (await c.getmany(timeout_ms=100)).values():
                for m in records:
                    print("record", m.partition, m.offset, m.value.decode(), flush=True)
    print("left", flush=True)


async def run_idempotent(topic, count):
    async with AIOKafkaProducer(bootstrap_servers=broker, enable_idempotence=True, linger_ms=2, retry_backoff_ms=100) as p:

        async def one(i, future):
            try:
                m = await future
                print("acked", m.partition, m.offset, i, flush=True)
            except Exception as error:
                print("lost", repr(error), flush=True)

        tasks = []
        for i in range(count):
            # A partition keeps its order only if its records enter in order.
            tasks.append(asyncio.ensure_future(one(i, await p.send(topic, b"%d" % i, partition=i % 4))))
            await asyncio.sleep(0.0005)
        await asyncio.wait_for(asyncio.gather(*tasks), 60)


if command == "suite":
    run_suite(*args)
elif command == "member":
    run(run_member(*args))
else:
    run(run_idempotent(args[0], int(args[1])))
