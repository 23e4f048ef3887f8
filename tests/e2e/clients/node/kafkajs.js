// kafkajs: `suite BROKER PREFIX`, `member BROKER TOPIC GROUP`, `idempotent BROKER TOPIC COUNT`.

import zlib from 'node:zlib'
import { lz4Compress, lz4Decompress } from '@platformatic/wasm-utils'
import kafkajs from 'kafkajs'
import SnappyCodec from 'kafkajs-snappy'
import { BASE, broker, check, checkRecords, main, samples, suite, wait } from './contract.js'

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = kafkajs
// kafkajs brings only gzip and asks its user for the others.
CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async encoder => lz4Compress(encoder.buffer),
  decompress: async buffer => lz4Decompress(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => zlib.zstdCompressSync(encoder.buffer),
  decompress: async buffer => zlib.zstdDecompressSync(buffer),
})

const kafka = new Kafka({ clientId: 'e2e', brokers: [broker], logLevel: logLevel.NOTHING, retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 60 } })
const admin = kafka.admin()

const create = (topic, partitions = 1, config = {}) =>
  admin.createTopics({
    topics: [{ topic, numPartitions: partitions, replicationFactor: 1, configEntries: Object.entries(config).map(([name, value]) => ({ name, value })) }],
    waitForLeaders: true,
  })

async function send(topic, messages, options = {}) {
  const producer = kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner })
  await producer.connect()
  await producer.send({ topic, messages, ...options })
  await producer.disconnect()
}

// kafkajs reads only in groups; `done` gets every record until it says true.
async function read(topic, groupId, count, options = {}) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 500, maxBytesPerPartition: 4 << 20, maxWaitTimeInMs: 300, ...options })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const got = []
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`${got.length} of ${count} records in 30 s`)), 30_000).unref()
    consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        if (got.length < count) got.push({ partition, ...message })
        if (got.length === count) resolve()
      },
    })
  })
  const ends = new Map(got.map(m => [m.partition, String(BigInt(m.offset) + 1n)]))
  await consumer.commitOffsets([...ends].map(([partition, offset]) => ({ topic, partition, offset, metadata: 'ours' })))
  await consumer.disconnect()
  return got
}

async function runSuite(prefix) {
  await admin.connect()
  await suite({
    'admin-calls': async () => {
      const topic = `${prefix}-admin`
      const partitions = async () => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length
      await create(topic, 2, { 'retention.ms': '86400000' })
      check(await partitions(), 2, 'partitions')
      await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] })
      await wait(200)
      check(await partitions(), 3, 'partitions after more')
      const retention = async () => {
        const about = await admin.describeConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }], includeSynonyms: false })
        return about.resources[0].configEntries.find(e => e.configName === 'retention.ms').configValue
      }
      check(await retention(), '86400000', 'retention.ms')
      await admin.alterConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'retention.ms', value: '3600000' }] }] })
      check(await retention(), '3600000', 'retention.ms after alter')
      check((await admin.describeCluster()).brokers.length, 1, 'brokers')
      check(await create(topic, 2), false, 'second create')
      await admin.deleteTopics({ topics: [topic] })
      await wait(500)
      check((await admin.listTopics()).includes(topic), false, 'deleted topic is listed')
    },
    codecs: async () => {
      for (const codec of ['None', 'GZIP', 'Snappy', 'LZ4', 'ZSTD']) {
        const topic = `${prefix}-${codec.toLowerCase()}`
        await create(topic, 1, { 'max.message.bytes': '2097152' })
        const wanted = samples()
        const messages = wanted.map(r => ({ partition: 0, key: r.key, value: r.value, headers: { h: r.header }, timestamp: String(r.time) }))
        await send(topic, messages, { compression: CompressionTypes[codec] })
        const got = await read(topic, `${topic}-group`, wanted.length)
        check(got.map(m => m.offset), wanted.map((_, i) => String(i)), `${codec} offsets`)
        checkRecords(got.map(m => ({ key: m.key, value: m.value, header: String(m.headers.h), time: m.timestamp })), wanted, codec)
      }
    },
    'offset-by-time': async () => {
      const topic = `${prefix}-times`
      await create(topic)
      await send(topic, Array.from({ length: 10 }, (_, i) => ({ partition: 0, value: 'x', timestamp: String(BASE + 1000 * i) })))
      const at = async time => (await admin.fetchTopicOffsetsByTimestamp(topic, time))[0].offset
      check([await at(BASE + 3000), await at(BASE + 3001), await at(BASE - 5)], ['3', '4', '0'], 'offsets by time')
      const [ends] = await admin.fetchTopicOffsets(topic)
      check([ends.low, ends.high], ['0', '10'], 'first and last')
    },
    groups: async () => {
      const [topic, group] = [`${prefix}-groups`, `${prefix}-group`]
      await create(topic, 4)
      await send(topic, Array.from({ length: 100 }, (_, i) => ({ partition: i % 4, value: String(i) })))
      const seen = [...(await read(topic, group, 50)), ...(await read(topic, group, 50))].map(m => Number(m.value))
      check(seen.sort((a, b) => a - b), Array.from({ length: 100 }, (_, i) => i), 'records of the group')
      check((await admin.listGroups()).groups.some(g => g.groupId === group), true, 'listed')
      check((await admin.describeGroups([group])).groups[0].state, 'Empty', 'state')
      const [about] = await admin.fetchOffsets({ groupId: group, topics: [topic] })
      check(about.partitions.map(p => [p.offset, p.metadata]).sort(), Array(4).fill(['25', 'ours']), 'committed')
      await admin.resetOffsets({ groupId: group, topic, earliest: true })
      check((await read(topic, group, 100)).length, 100, 'records after a reset')
      await admin.deleteGroups([group])
      check((await admin.listGroups()).groups.some(g => g.groupId === group), false, 'listed after delete')
    },
    'delete-records': async () => {
      const topic = `${prefix}-deleted`
      await create(topic)
      await send(topic, Array.from({ length: 10 }, () => ({ partition: 0, value: 'x' })))
      // kafkajs deletes records only of topics whose leaders it knows, and learns them only on another errand.
      const fresh = kafka.admin()
      await fresh.connect()
      await fresh.fetchTopicOffsets(topic)
      await fresh.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '4' }] })
      await fresh.disconnect()
      const got = await read(topic, `${topic}-group`, 6)
      check(got.map(m => m.offset), ['4', '5', '6', '7', '8', '9'], 'what is left')
    },
  })
}

async function member(topic, groupId) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 500, rebalanceTimeout: 10000, maxWaitTimeInMs: 500 })
  consumer.on(consumer.events.GROUP_JOIN, e => console.log('assigned', ...(e.payload.memberAssignment[topic] ?? []).sort()))
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({
    autoCommitInterval: 200,
    eachMessage: async ({ partition, message }) => console.log('record', partition, message.offset, String(message.value)),
  })
  await new Promise(resolve => process.once('SIGTERM', resolve))
  await consumer.disconnect()
  console.log('left')
}

async function idempotent(topic, count) {
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1, createPartitioner: kafkajs.Partitioners.DefaultPartitioner })
  await producer.connect()
  // kafkajs has no linger: a batch is what one send is given, and a partition's sends follow one another.
  for (let i = 0; i < count; i += 20) {
    const values = Array.from({ length: Math.min(20, count - i) }, (_, k) => i + k)
    try {
      const answers = await producer.send({ topic, acks: -1, messages: values.map(v => ({ partition: v % 4, value: String(v) })) })
      for (const { partition, baseOffset } of answers) {
        const mine = values.filter(v => v % 4 === partition)
        mine.forEach((v, k) => console.log('acked', partition, Number(baseOffset) + k, v))
      }
    } catch (error) {
      console.log('lost', error.message)
      return
    }
  }
  await producer.disconnect()
}

await main({ suite: runSuite, member, idempotent: (topic, count) => idempotent(topic, Number(count)) })
