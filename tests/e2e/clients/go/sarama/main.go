// sarama: `suite BROKER PREFIX`, `member BROKER TOPIC GROUP`, `idempotent BROKER TOPIC COUNT`.
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
	"sync"
	"syscall"
	"time"

	"github.com/IBM/sarama"
)

const base = 1_700_000_000_000

var broker string

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

func config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.V3_6_0_0
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Producer.MaxMessageBytes = 4_000_000
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Return.Successes = true
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Fetch.Default = 4 << 20
	c.Consumer.MaxWaitTime = 250 * time.Millisecond
	c.Consumer.Group.Session.Timeout = 6 * time.Second
	c.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	return c
}

func create(a sarama.ClusterAdmin, topic string, partitions int32, configs map[string]string) error {
	entries := map[string]*string{}
	for k, v := range configs {
		entries[k] = &v
	}
	return a.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: entries}, false)
}

func send(topic string, messages []*sarama.ProducerMessage, codec sarama.CompressionCodec) {
	c := config()
	c.Producer.Compression = codec
	p, err := sarama.NewSyncProducer([]string{broker}, c)
	must(err)
	for _, m := range messages {
		m.Topic = topic
	}
	must(p.SendMessages(messages))
	must(p.Close())
}

func numbers(count, partitions int) []*sarama.ProducerMessage {
	var out []*sarama.ProducerMessage
	for i := range count {
		out = append(out, &sarama.ProducerMessage{Partition: int32(i % partitions), Value: sarama.StringEncoder(strconv.Itoa(i)), Timestamp: time.UnixMilli(base + 1000*int64(i))})
	}
	return out
}

// Reads from the start of partition 0.
func read(topic string, count int) []*sarama.ConsumerMessage {
	c, err := sarama.NewConsumer([]string{broker}, config())
	must(err)
	defer c.Close()
	p, err := c.ConsumePartition(topic, 0, sarama.OffsetOldest)
	must(err)
	defer p.Close()
	var out []*sarama.ConsumerMessage
	end := time.After(30 * time.Second)
	for len(out) < count {
		select {
		case m := <-p.Messages():
			out = append(out, m)
		case <-end:
			panic(fmt.Errorf("%d of %d records in 30 s", len(out), count))
		}
	}
	return out
}

type handler struct {
	topic string
	setup func([]int32)
	each  func(sarama.ConsumerGroupSession, *sarama.ConsumerMessage)
}

func (h handler) Setup(s sarama.ConsumerGroupSession) error {
	if h.setup != nil {
		h.setup(s.Claims()[h.topic])
	}
	return nil
}
func (h handler) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (h handler) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case m, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			h.each(s, m)
		case <-s.Context().Done():
			return nil
		}
	}
}

// Reads and commits exactly `count` records as a member of a group.
func readGroup(topic, group string, count int) []int {
	c := config()
	c.Consumer.Offsets.AutoCommit.Enable = false
	g, err := sarama.NewConsumerGroup([]string{broker}, group, c)
	must(err)
	defer g.Close()
	end, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var lock sync.Mutex
	var seen []int
	must(g.Consume(end, []string{topic}, handler{topic: topic, each: func(s sarama.ConsumerGroupSession, m *sarama.ConsumerMessage) {
		lock.Lock()
		defer lock.Unlock()
		if len(seen) == count {
			return
		}
		n, _ := strconv.Atoi(string(m.Value))
		seen = append(seen, n)
		s.MarkMessage(m, "ours")
		if len(seen) == count {
			s.Commit()
			cancel()
		}
	}}))
	return seen
}

func suite(prefix string) {
	a, err := sarama.NewClusterAdmin([]string{broker}, config())
	must(err)
	cases := []struct {
		name string
		run  func()
	}{
		{"admin-calls", func() {
			topic := prefix + "-admin"
			partitions := func() int {
				about, err := a.DescribeTopics([]string{topic})
				must(err)
				return len(about[0].Partitions)
			}
			must(create(a, topic, 2, map[string]string{"retention.ms": "86400000"}))
			time.Sleep(200 * time.Millisecond)
			check(partitions(), 2, "partitions")
			must(a.CreatePartitions(topic, 3, nil, false))
			time.Sleep(200 * time.Millisecond)
			check(partitions(), 3, "partitions after more")
			retention := func() string {
				entries, err := a.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"}})
				must(err)
				return entries[0].Value
			}
			check(retention(), "86400000", "retention.ms")
			hour, two := "3600000", "7200000"
			must(a.IncrementalAlterConfig(sarama.TopicResource, topic, map[string]sarama.IncrementalAlterConfigsEntry{"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &hour}}, false))
			check(retention(), hour, "retention.ms after incremental alter")
			must(a.AlterConfig(sarama.TopicResource, topic, map[string]*string{"retention.ms": &two}, false))
			check(retention(), two, "retention.ms after alter")
			brokers, _, err := a.DescribeCluster()
			must(err)
			check(len(brokers), 1, "brokers")
			_, err = a.DescribeLogDirs([]int32{brokers[0].ID()})
			must(err)
			if err := create(a, topic, 2, nil); !errors.Is(err, sarama.ErrTopicAlreadyExists) {
				panic(fmt.Errorf("second create: %v", err))
			}
			must(a.DeleteTopic(topic))
			time.Sleep(500 * time.Millisecond)
			topics, err := a.ListTopics()
			must(err)
			_, there := topics[topic]
			check(there, false, "deleted topic is listed")
		}},
		{"codecs", func() {
			large := make([]byte, 1<<20)
			rand.New(rand.NewSource(7)).Read(large[:1<<19])
			for _, codec := range []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD} {
				topic := prefix + "-" + codec.String()
				must(create(a, topic, 1, map[string]string{"max.message.bytes": "2097152"}))
				var sent []*sarama.ProducerMessage
				for i := range 20 {
					headers := []sarama.RecordHeader{{Key: []byte("n"), Value: []byte{byte(i)}}, {Key: []byte("n"), Value: []byte("again")}}
					sent = append(sent, &sarama.ProducerMessage{Key: sarama.StringEncoder(strconv.Itoa(i)), Value: sarama.ByteEncoder(bytes.Repeat([]byte("v"), 30*i+1)), Headers: headers})
				}
				sent = append(sent, &sarama.ProducerMessage{Value: sarama.StringEncoder("no key")}, &sarama.ProducerMessage{Key: sarama.StringEncoder("no value")},
					&sarama.ProducerMessage{Key: sarama.StringEncoder("large"), Value: sarama.ByteEncoder(large)})
				for i, m := range sent {
					m.Timestamp = time.UnixMilli(base + int64(i))
				}
				send(topic, sent, codec)
				for i, m := range read(topic, len(sent)) {
					check(m.Offset, i, "offset")
					check(m.Timestamp.UnixMilli(), base+i, "timestamp")
					check(m.Key == nil, sent[i].Key == nil, "null key")
					check(m.Value == nil, sent[i].Value == nil, "null value")
					check(len(m.Headers), len(sent[i].Headers), "headers")
					if sent[i].Value != nil {
						wanted, _ := sent[i].Value.Encode()
						check(bytes.Equal(m.Value, wanted), true, "value")
					}
				}
			}
		}},
		{"offset-by-time", func() {
			topic := prefix + "-times"
			must(create(a, topic, 1, nil))
			send(topic, numbers(10, 1), sarama.CompressionNone)
			c, err := sarama.NewClient([]string{broker}, config())
			must(err)
			defer c.Close()
			for at, wanted := range map[int64]int64{base + 3000: 3, base + 3001: 4, base - 5: 0, base + 99999: -1, sarama.OffsetOldest: 0, sarama.OffsetNewest: 10} {
				got, err := c.GetOffset(topic, 0, at)
				must(err)
				check(got, wanted, "offset by time")
			}
		}},
		{"groups", func() {
			topic, group := prefix+"-groups", prefix+"-group"
			must(create(a, topic, 4, nil))
			send(topic, numbers(100, 4), sarama.CompressionNone)
			seen := append(readGroup(topic, group, 50), readGroup(topic, group, 50)...)
			sort.Ints(seen)
			for i := range 100 {
				check(seen[i], i, "record of the group")
			}
			listed, err := a.ListConsumerGroups()
			must(err)
			check(listed[group], "consumer", "listed")
			about, err := a.DescribeConsumerGroups([]string{group})
			must(err)
			check(about[0].State, "Empty", "state")
			offsets, err := a.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0, 1, 2, 3}})
			must(err)
			for p := range int32(4) {
				check(offsets.GetBlock(topic, p).Offset, 25, "committed")
			}
			must(a.DeleteConsumerGroupOffset(group, topic, 0))
			must(a.DeleteConsumerGroup(group))
		}},
		{"delete-records", func() {
			topic := prefix + "-deleted"
			must(create(a, topic, 1, nil))
			send(topic, numbers(10, 1), sarama.CompressionNone)
			must(a.DeleteRecords(topic, map[int32]int64{0: 4}))
			check(read(topic, 6)[0].Offset, 4, "first that is left")
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
	must(a.Close())
}

func member(topic, group string) {
	c := config()
	c.Consumer.Offsets.AutoCommit.Interval = 200 * time.Millisecond
	g, err := sarama.NewConsumerGroup([]string{broker}, group, c)
	must(err)
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	h := handler{topic: topic,
		setup: func(parts []int32) {
			sort.Slice(parts, func(i, k int) bool { return parts[i] < parts[k] })
			fmt.Println(strings.TrimSpace("assigned " + strings.Trim(fmt.Sprint(parts), "[]")))
		},
		each: func(s sarama.ConsumerGroupSession, m *sarama.ConsumerMessage) {
			fmt.Println("record", m.Partition, m.Offset, string(m.Value))
			s.MarkMessage(m, "")
		}}
	for stop.Err() == nil {
		if err := g.Consume(stop, []string{topic}, h); err != nil && stop.Err() == nil {
			time.Sleep(100 * time.Millisecond)
		}
	}
	must(g.Close())
	fmt.Println("left")
}

func idempotent(topic string, count int) {
	c := config()
	c.Producer.Idempotent = true
	c.Net.MaxOpenRequests = 1
	c.Producer.Retry.Max = 600
	c.Producer.Retry.Backoff = 100 * time.Millisecond
	c.Metadata.Retry.Max = 600
	c.Metadata.Retry.Backoff = 100 * time.Millisecond
	p, err := sarama.NewAsyncProducer([]string{broker}, c)
	must(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for left := count; left > 0; left-- {
			select {
			case m := <-p.Successes():
				value, _ := m.Value.Encode()
				fmt.Println("acked", m.Partition, m.Offset, string(value))
			case err := <-p.Errors():
				fmt.Println("lost", err)
			}
		}
	}()
	for i := range count {
		p.Input() <- &sarama.ProducerMessage{Topic: topic, Partition: int32(i % 4), Value: sarama.StringEncoder(strconv.Itoa(i))}
		time.Sleep(500 * time.Microsecond)
	}
	<-done
	must(p.Close())
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
