import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.*;

/** Kafka's own Java client: `suite BROKER PREFIX`, `member BROKER TOPIC GROUP`, `idempotent BROKER TOPIC COUNT`. */
public class Client {
    static final long BASE = 1_700_000_000_000L;
    static String broker;
    static Admin admin;

    interface Case { void run() throws Exception; }

    static void check(Object got, Object wanted, String what) {
        if (!Objects.equals(got, wanted)) throw new AssertionError(what + ": got " + got + ", wanted " + wanted);
    }

    static byte[] bytes(String s) { return s == null ? null : s.getBytes(StandardCharsets.UTF_8); }

    static Properties properties(Object... pairs) {
        Properties p = new Properties();
        p.put("bootstrap.servers", broker);
        for (int i = 0; i < pairs.length; i += 2) p.put(pairs[i], String.valueOf(pairs[i + 1]));
        return p;
    }

    static KafkaProducer<byte[], byte[]> producer(Object... pairs) {
        Properties p = properties(pairs);
        p.put("max.request.size", "4000000");
        return new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(Object... pairs) {
        Properties p = properties("auto.offset.reset", "earliest", "enable.auto.commit", "false", "session.timeout.ms", "6000",
            "heartbeat.interval.ms", "500");
        p.putAll(properties(pairs));
        return new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static List<ConsumerRecord<byte[], byte[]>> read(KafkaConsumer<byte[], byte[]> c, int count) {
        List<ConsumerRecord<byte[], byte[]>> out = new ArrayList<>();
        long end = System.currentTimeMillis() + 30_000;
        while (out.size() < count && System.currentTimeMillis() < end) for (var r : c.poll(Duration.ofMillis(300))) out.add(r);
        return out;
    }

    static void create(String topic, int partitions, String... config) throws Exception {
        Map<String, String> configs = new HashMap<>();
        for (int i = 0; i < config.length; i += 2) configs.put(config[i], config[i + 1]);
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(configs))).all().get(20, TimeUnit.SECONDS);
    }

    static void send(String topic, int partitions, int count) throws Exception {
        try (var p = producer()) {
            for (int i = 0; i < count; i++) p.send(new ProducerRecord<>(topic, i % partitions, BASE + 1000L * i, null, bytes("" + i)));
            p.flush();
        }
    }

    static String config(String topic, String name) throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        return admin.describeConfigs(List.of(resource)).all().get().get(resource).get(name).value();
    }

    static void adminCalls(String prefix) throws Exception {
        String topic = prefix + "-admin";
        create(topic, 2, "retention.ms", "86400000");
        check(admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size(), 2, "partitions");
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all().get();
        var about = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
        check(about.partitions().size(), 3, "partitions after more");
        check(about.topicId().equals(Uuid.ZERO_UUID), false, "topic id is zero");
        var byId = admin.describeTopics(TopicCollection.ofTopicIds(List.of(about.topicId()))).allTopicIds().get();
        check(byId.get(about.topicId()).name(), topic, "described by id");
        check(config(topic, "retention.ms"), "86400000", "retention.ms");
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var op = new AlterConfigOp(new ConfigEntry("retention.ms", "3600000"), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(op))).all().get();
        check(config(topic, "retention.ms"), "3600000", "retention.ms after alter");
        check(admin.describeCluster().nodes().get().size(), 1, "nodes");
        int id = admin.describeCluster().nodes().get().iterator().next().id();
        check(admin.describeLogDirs(List.of(id)).allDescriptions().get().get(id).isEmpty(), false, "no log dirs");
        check(admin.listPartitionReassignments().reassignments().get().isEmpty(), true, "reassignments");
        try {
            create(topic, 2);
            throw new AssertionError("a topic was created twice");
        } catch (ExecutionException e) {
            check(e.getCause() instanceof TopicExistsException, true, "second create: " + e.getCause());
        }
        admin.deleteTopics(List.of(topic)).all().get();
        Thread.sleep(500);
        check(admin.listTopics().names().get().contains(topic), false, "deleted topic is listed");
    }

    static void codecs(String prefix) throws Exception {
        byte[] noise = new byte[1 << 19];
        new Random(7).nextBytes(noise);
        byte[] large = Arrays.copyOf(noise, 1 << 20);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            String topic = prefix + "-" + codec;
            create(topic, 1, "max.message.bytes", "2097152");
            List<ProducerRecord<byte[], byte[]>> sent = new ArrayList<>();
            for (int i = 0; i < 20; i++) {
                var r = new ProducerRecord<>(topic, 0, BASE + i, bytes("k" + i), bytes("value ".repeat(i)));
                r.headers().add("n", bytes("" + i)).add("n", bytes("again")).add(new RecordHeader("null", (byte[]) null));
                sent.add(r);
            }
            sent.add(new ProducerRecord<>(topic, 0, BASE + 20, null, bytes("no key")));
            sent.add(new ProducerRecord<>(topic, 0, BASE + 21, bytes("no value"), (byte[]) null));
            sent.add(new ProducerRecord<>(topic, 0, BASE + 22, bytes(""), bytes("")));
            sent.add(new ProducerRecord<>(topic, 0, BASE + 23, bytes("large"), large));
            try (var p = producer("compression.type", codec, "linger.ms", 20)) {
                List<Future<RecordMetadata>> futures = new ArrayList<>();
                for (var r : sent) futures.add(p.send(r));
                for (int i = 0; i < futures.size(); i++) check(futures.get(i).get().offset(), (long) i, codec + " offset");
            }
            try (var c = consumer()) {
                c.assign(List.of(new TopicPartition(topic, 0)));
                c.seekToBeginning(c.assignment());
                var got = read(c, sent.size());
                check(got.size(), sent.size(), codec + " count");
                for (int i = 0; i < sent.size(); i++) {
                    check(Arrays.equals(got.get(i).key(), sent.get(i).key()), true, codec + " key " + i);
                    check(Arrays.equals(got.get(i).value(), sent.get(i).value()), true, codec + " value " + i);
                    check(got.get(i).timestamp(), sent.get(i).timestamp(), codec + " timestamp " + i);
                    check(Arrays.asList(got.get(i).headers().toArray()), Arrays.asList(sent.get(i).headers().toArray()), codec + " headers " + i);
                }
            }
        }
    }

    static void offsetByTime(String prefix) throws Exception {
        String topic = prefix + "-times";
        create(topic, 1);
        send(topic, 1, 10);
        var at = new TopicPartition(topic, 0);
        try (var c = consumer()) {
            check(c.offsetsForTimes(Map.of(at, BASE + 3000)).get(at).offset(), 3L, "exact");
            check(c.offsetsForTimes(Map.of(at, BASE + 3001)).get(at).offset(), 4L, "between");
            check(c.offsetsForTimes(Map.of(at, BASE - 5)).get(at).offset(), 0L, "before");
            check(c.offsetsForTimes(Map.of(at, BASE + 99999)).get(at), null, "past the end");
            check(c.beginningOffsets(List.of(at)).get(at), 0L, "first");
            check(c.endOffsets(List.of(at)).get(at), 10L, "last");
        }
        check(admin.listOffsets(Map.of(at, OffsetSpec.maxTimestamp())).all().get().get(at).offset(), 9L, "max timestamp");
    }

    static void groups(String prefix) throws Exception {
        String topic = prefix + "-groups", group = prefix + "-group";
        create(topic, 4);
        send(topic, 4, 100);
        List<Integer> seen = new ArrayList<>();
        for (int turn = 0; turn < 2; turn++) {
            try (var c = consumer("group.id", group, "max.poll.records", 50)) {
                c.subscribe(List.of(topic));
                Map<TopicPartition, OffsetAndMetadata> ends = new HashMap<>();
                for (var r : read(c, 50)) {
                    seen.add(Integer.parseInt(new String(r.value())));
                    ends.put(new TopicPartition(topic, r.partition()), new OffsetAndMetadata(r.offset() + 1, "ours"));
                }
                c.commitSync(ends);
            }
        }
        Collections.sort(seen);
        check(seen.size(), 100, "records of the group");
        for (int i = 0; i < 100; i++) check(seen.get(i), i, "record of the group");
        check(admin.listConsumerGroups().all().get().stream().anyMatch(g -> g.groupId().equals(group)), true, "listed");
        check(admin.describeConsumerGroups(List.of(group)).all().get().get(group).state().toString(), "Empty", "state");
        var offsets = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        for (int i = 0; i < 4; i++) check(offsets.get(new TopicPartition(topic, i)), new OffsetAndMetadata(25, "ours"), "committed " + i);
        admin.alterConsumerGroupOffsets(group, Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(7))).all().get();
        offsets = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        check(offsets.get(new TopicPartition(topic, 0)).offset(), 7L, "altered offset");
        admin.deleteConsumerGroupOffsets(group, Set.of(new TopicPartition(topic, 0))).all().get();
        admin.deleteConsumerGroups(List.of(group)).all().get();
        check(admin.listConsumerGroups().all().get().stream().anyMatch(g -> g.groupId().equals(group)), false, "listed after delete");
    }

    static void staticMember(String prefix) throws Exception {
        String topic = prefix + "-static", group = prefix + "-static";
        create(topic, 2);
        send(topic, 2, 10);
        Set<TopicPartition> first = null;
        int generation = -1;
        for (int turn = 0; turn < 2; turn++) {
            try (var c = consumer("group.id", group, "group.instance.id", "one")) {
                c.subscribe(List.of(topic));
                check(read(c, 10).size(), 10, "records");
                if (turn == 1) {
                    check(c.assignment(), first, "assignment after a static member came back");
                    check(c.groupMetadata().generationId(), generation, "generation: a static member's return is no rebalance");
                }
                first = c.assignment();
                generation = c.groupMetadata().generationId();
            }
        }
        admin.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions(Set.of(new MemberToRemove("one")))).all().get();
        check(admin.describeConsumerGroups(List.of(group)).all().get().get(group).members().size(), 0, "members after removal");
    }

    static void deleteRecords(String prefix) throws Exception {
        String topic = prefix + "-deleted";
        create(topic, 1);
        send(topic, 1, 10);
        var at = new TopicPartition(topic, 0);
        var low = admin.deleteRecords(Map.of(at, RecordsToDelete.beforeOffset(4))).lowWatermarks().get(at).get();
        check(low.lowWatermark(), 4L, "low watermark");
        try (var c = consumer()) {
            c.assign(List.of(at));
            c.seekToBeginning(c.assignment());
            check(read(c, 6).get(0).offset(), 4L, "first that is left");
        }
    }

    static void logAppendTime(String prefix) throws Exception {
        String topic = prefix + "-append-time";
        create(topic, 1, "message.timestamp.type", "LogAppendTime");
        long begin = System.currentTimeMillis();
        try (var p = producer()) {
            long told = p.send(new ProducerRecord<>(topic, 0, BASE, null, bytes("x"))).get().timestamp();
            check(told >= begin - 1000 && told < begin + 60_000, true, "the answer says " + told);
            try (var c = consumer()) {
                c.assign(List.of(new TopicPartition(topic, 0)));
                c.seekToBeginning(c.assignment());
                var r = read(c, 1).get(0);
                check(r.timestamp(), told, "timestamp read");
                check(r.timestampType().toString(), "LogAppendTime", "type");
            }
        }
    }

    static void suite(String prefix) {
        Map<String, Case> cases = new LinkedHashMap<>();
        cases.put("admin-calls", () -> adminCalls(prefix));
        cases.put("codecs", () -> codecs(prefix));
        cases.put("offset-by-time", () -> offsetByTime(prefix));
        cases.put("groups", () -> groups(prefix));
        cases.put("static-member", () -> staticMember(prefix));
        cases.put("delete-records", () -> deleteRecords(prefix));
        cases.put("log-append-time", () -> logAppendTime(prefix));
        admin = Admin.create(properties());
        cases.forEach((name, test) -> {
            try {
                test.run();
                System.out.println("ok " + name);
            } catch (Throwable e) {
                e.printStackTrace();
                String why = String.valueOf(e).replace('\n', ' ');
                System.out.println("FAILED " + name + ": " + why.substring(0, Math.min(400, why.length())));
            }
        });
        admin.close(Duration.ofSeconds(5));
    }

    static void member(String topic, String group) throws Exception {
        var stop = new CountDownLatch(1);
        var left = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stop.countDown();
            try { left.await(20, TimeUnit.SECONDS); } catch (InterruptedException e) { }
        }));
        try (var c = consumer("group.id", group, "enable.auto.commit", "true", "auto.commit.interval.ms", "200")) {
            c.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                public void onPartitionsRevoked(Collection<TopicPartition> revoked) { }
                public void onPartitionsAssigned(Collection<TopicPartition> assigned) {
                    var line = new StringBuilder("assigned");
                    c.assignment().stream().map(TopicPartition::partition).sorted().forEach(p -> line.append(' ').append(p));
                    System.out.println(line);
                }
            });
            while (stop.getCount() > 0)
                for (var r : c.poll(Duration.ofMillis(100)))
                    System.out.println("record " + r.partition() + " " + r.offset() + " " + new String(r.value()));
        }
        System.out.println("left");
        left.countDown();
    }

    static void idempotent(String topic, int count) throws Exception {
        try (var p = producer("linger.ms", 2, "reconnect.backoff.max.ms", 500, "request.timeout.ms", 10000, "delivery.timeout.ms", 90000)) {
            for (int i = 0; i < count; i++) {
                String value = "" + i;
                p.send(new ProducerRecord<>(topic, i % 4, null, bytes(value)), (m, e) ->
                    System.out.println(e == null ? "acked " + m.partition() + " " + m.offset() + " " + value : "lost " + e));
                if (i % 2 == 0) Thread.sleep(1);
            }
        }
    }

    public static void main(String[] args) throws Exception {
        broker = args[1];
        switch (args[0]) {
            case "suite" -> suite(args[2]);
            case "member" -> member(args[2], args[3]);
            default -> idempotent(args[2], Integer.parseInt(args[3]));
        }
    }
}
