// franz-go: `suite BROKER PREFIX`, `member BROKER TOPIC GROUP`, `idempotent BROKER TOPIC COUNT`.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const base = 1_700_000_000_000

var (
	broker string
	ctx    = context.Background()
)

func client(options ...kgo.Opt) *kgo.Client {
	options = append(options, kgo.SeedBrokers(broker), kgo.ProducerBatchMaxBytes(4_000_000), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	c, err := kgo.NewClient(options...)
	must(err)
	return c
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func check(got, wanted any, what string) {
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		panic(fmt.Errorf("%s: got %.300v, wanted %.300v", what, got, wanted))
	}
}

func create(a *kadm.Client, topic string, partitions int32, configs map[string]*string) error {
	answer, err := a.CreateTopic(ctx, partitions, 1, configs, topic)
	if err != nil {
		return err
	}
	return answer.Err
}

func send(topic string, records []*kgo.Record, options ...kgo.Opt) {
	c := client(options...)
	defer c.Close()
	for _, r := range records {
		r.Topic = topic
	}
	must(c.ProduceSync(ctx, records...).FirstErr())
}

func numbers(count, partitions int) []*kgo.Record {
	var out []*kgo.Record
	for i := range count {
		out = append(out, &kgo.Record{Partition: int32(i % partitions), Value: []byte(strconv.Itoa(i)), Timestamp: time.UnixMilli(base + 1000*int64(i))})
	}
	return out
}

func read(c *kgo.Client, count int) []*kgo.Record {
	var out []*kgo.Record
	end, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for len(out) < count {
		fetches := c.PollRecords(end, count-len(out))
		must(fetches.Err())
		out = append(out, fetches.Records()...)
	}
	return out
}

func direct(topic string) *kgo.Client {
	return client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
}

func samples() []*kgo.Record {
	large := make([]byte, 1<<20)
	rand.New(rand.NewSource(7)).Read(large[:1<<19])
	var out []*kgo.Record
	for i := range 20 {
		headers := []kgo.RecordHeader{{Key: "n", Value: []byte{byte(i)}}, {Key: "n", Value: []byte("again")}, {Key: "null"}}
		out = append(out, &kgo.Record{Key: []byte(strconv.Itoa(i)), Value: bytes.Repeat([]byte("v"), 30*i+1), Headers: headers})
	}
	out = append(out, &kgo.Record{Value: []byte("no key")}, &kgo.Record{Key: []byte("no value")},
		&kgo.Record{Key: []byte{}, Value: []byte{}}, &kgo.Record{Key: []byte("large"), Value: large})
	for i, r := range out {
		r.Timestamp = time.UnixMilli(base + int64(i))
	}
	return out
}

func show(r *kgo.Record) string {
	return fmt.Sprintf("%v %x %v %x %v %d", r.Key == nil, r.Key, r.Value == nil, r.Value, r.Headers, r.Timestamp.UnixMilli())
}

func value(s string) *string { return &s }

func suite(prefix string) {
	c := client()
	a := kadm.NewClient(c)
	cases := []struct {
		name string
		run  func()
	}{
		{"admin-calls", func() {
			topic := prefix + "-admin"
			must(create(a, topic, 2, map[string]*string{"retention.ms": value("86400000")}))
			about, err := a.ListTopics(ctx, topic)
			must(err)
			check(len(about[topic].Partitions), 2, "partitions")
			check(about[topic].ID == kadm.TopicID{}, false, "topic id is zero")
			more, err := a.UpdatePartitions(ctx, 3, topic)
			must(err)
			must(more.Error())
			time.Sleep(300 * time.Millisecond)
			about, err = a.ListTopics(ctx, topic)
			must(err)
			check(len(about[topic].Partitions), 3, "partitions after more")
			retention := func() string {
				configs, err := a.DescribeTopicConfigs(ctx, topic)
				must(err)
				for _, c := range configs[0].Configs {
					if c.Key == "retention.ms" {
						return c.MaybeValue()
					}
				}
				return "absent"
			}
			check(retention(), "86400000", "retention.ms")
			altered, err := a.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: value("3600000")}}, topic)
			must(err)
			must(altered[0].Err)
			check(retention(), "3600000", "retention.ms after alter")
			_, err = a.DescribeAllLogDirs(ctx, nil)
			must(err)
			if err := create(a, topic, 2, nil); !errors.Is(err, kerr.TopicAlreadyExists) {
				panic(fmt.Errorf("second create: %v", err))
			}
			deleted, err := a.DeleteTopics(ctx, topic)
			must(err)
			must(deleted.Error())
			time.Sleep(500 * time.Millisecond)
			names, err := a.ListTopics(ctx)
			must(err)
			check(names.Has(topic), false, "deleted topic is listed")
		}},
		{"codecs", func() {
			codecs := map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(),
				"snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}
			for name, codec := range codecs {
				topic := prefix + "-" + name
				must(create(a, topic, 1, map[string]*string{"max.message.bytes": value("2097152")}))
				wanted := samples()
				send(topic, wanted, kgo.ProducerBatchCompression(codec))
				reader := direct(topic)
				got := read(reader, len(wanted))
				reader.Close()
				for i, r := range got {
					check(r.Offset, i, name+" offset")
					check(show(r), show(wanted[i]), name)
				}
			}
		}},
		{"offset-by-time", func() {
			topic := prefix + "-times"
			must(create(a, topic, 1, nil))
			send(topic, numbers(10, 1))
			for at, wanted := range map[int64]int64{base + 3000: 3, base + 3001: 4, base - 5: 0} {
				listed, err := a.ListOffsetsAfterMilli(ctx, at, topic)
				must(err)
				check(listed[topic][0].Offset, wanted, "offset by time")
			}
			first, err := a.ListStartOffsets(ctx, topic)
			must(err)
			last, err := a.ListEndOffsets(ctx, topic)
			must(err)
			check([]int64{first[topic][0].Offset, last[topic][0].Offset}, []int64{0, 10}, "first and last")
			newest, err := a.ListMaxTimestampOffsets(ctx, topic)
			must(err)
			check(newest[topic][0].Offset, 9, "max timestamp")
		}},
		{"groups", func() {
			topic, group := prefix+"-groups", prefix+"-group"
			must(create(a, topic, 4, nil))
			send(topic, numbers(100, 4))
			var seen []int
			for range 2 {
				c := client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
				got := read(c, 50)
				for _, r := range got {
					n, _ := strconv.Atoi(string(r.Value))
					seen = append(seen, n)
				}
				must(c.CommitRecords(ctx, got...))
				c.Close()
			}
			sort.Ints(seen)
			for i := range 100 {
				check(seen[i], i, "record of the group")
			}
			listed, err := a.ListGroups(ctx)
			must(err)
			_, ok := listed[group]
			check(ok, true, "listed")
			about, err := a.DescribeGroups(ctx, group)
			must(err)
			check(about[group].State, "Empty", "state")
			lags, err := a.Lag(ctx, group)
			must(err)
			check(lags[group].Lag.Total(), 0, "lag")
			offsets, err := a.FetchOffsets(ctx, group)
			must(err)
			for p := range int32(4) {
				o, _ := offsets.Lookup(topic, p)
				check(o.At, 25, "committed")
			}
			deleted, err := a.DeleteGroup(ctx, group)
			must(err)
			must(deleted.Err)
		}},
		{"delete-records", func() {
			topic := prefix + "-deleted"
			must(create(a, topic, 1, nil))
			send(topic, numbers(10, 1))
			offsets := kadm.Offsets{}
			offsets.AddOffset(topic, 0, 4, -1)
			answer, err := a.DeleteRecords(ctx, offsets)
			must(err)
			must(answer.Error())
			c := direct(topic)
			defer c.Close()
			check(read(c, 6)[0].Offset, 4, "first that is left")
		}},
	}
	for _, one := range cases {
		func() {
			defer func() {
				if r := recover(); r != nil {
					fmt.Printf("FAILED %s: %.400s\n", one.name, strings.ReplaceAll(fmt.Sprint(r), "\n", " "))
				}
			}()
			one.run()
			fmt.Println("ok", one.name)
		}()
	}
}

func member(topic, group string) {
	held := map[int32]bool{}
	say := func() {
		line := "assigned"
		for p := range int32(16) {
			if held[p] {
				line += " " + strconv.Itoa(int(p))
			}
		}
		fmt.Println(line)
	}
	change := func(hold bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
			for _, p := range parts[topic] {
				held[p] = hold
			}
			say()
		}
	}
	c := client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(500*time.Millisecond), kgo.AutoCommitInterval(200*time.Millisecond),
		kgo.OnPartitionsAssigned(change(true)), kgo.OnPartitionsRevoked(change(false)), kgo.OnPartitionsLost(change(false)))
	stop, cancel := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer cancel()
	for stop.Err() == nil {
		c.PollFetches(stop).EachRecord(func(r *kgo.Record) { fmt.Println("record", r.Partition, r.Offset, string(r.Value)) })
	}
	must(c.CommitUncommittedOffsets(ctx))
	c.Close()
	fmt.Println("left")
}

func idempotent(topic string, count int) {
	// The reader that checks the log knows no snappy, which is this client's default.
	c := client(kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(2*time.Millisecond), kgo.RecordDeliveryTimeout(90*time.Second), kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }))
	for i := range count {
		c.Produce(ctx, &kgo.Record{Topic: topic, Partition: int32(i % 4), Value: []byte(strconv.Itoa(i))}, func(r *kgo.Record, err error) {
			if err != nil {
				fmt.Println("lost", err)
			} else {
				fmt.Println("acked", r.Partition, r.Offset, string(r.Value))
			}
		})
		time.Sleep(500 * time.Microsecond)
	}
	must(c.Flush(ctx))
	c.Close()
}

func main() {
	broker = os.Args[2]
	switch os.Args[1] {
	case "suite":
		suite(os.Args[3])
	case "member":
		member(os.Args[3], os.Args[4])
	default:
		count, err := strconv.Atoi(os.Args[4])
		must(err)
		idempotent(os.Args[3], count)
	}
}
