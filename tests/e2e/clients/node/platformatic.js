// @platformatic/kafka: `suite BROKER PREFIX`, `member BROKER TOPIC GROUP`, `idempotent BROKER TOPIC COUNT`.

import { Admin, Consumer, ListOffsetTimestamps, Producer } from '@platformatic/kafka'
import { BASE, broker, check, checkRecords, main, samples, suite, wait } from './contract.js'

const common = { clientId: 'e2e', bootstrapBrokers: [broker], retries: 100, retryDelay: 300 }
const admin = new Admin(common)

const create = (topic, partitions = 1, config = {}) =>
  admin.createTopics({ topics: [topic], partitions, replicas: 1, configs: Object.entries(config).map(([name, value]) => ({ name, value })) })

async function send(messages, options = {}) {
  const producer = new Producer({ ...common, acks: -1, ...options })
  const answer = await producer.send({ messages })
  await producer.close()
  return answer
}

const bytes = v => (typeof v === 'string' ? Buffer.from(v) : v)

async function read(topic, groupId, count, options = {}) {
  const consumer = new Consumer({ ...common, groupId, sessionTimeout: 6000, heartbeatInterval: 500, maxWaitTime: 300, autocommit: false })
  const stream = await consumer.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest', ...options })
  const got = []
  const timer = setTimeout(() => stream.destroy(new Error(`${got.length} of ${count} records in 30 s`)), 30_000)
  for await (const message of stream) {
    got.push(message)
    if (got.length === count) break
  }
  clearTimeout(timer)
  const ends = new Map(got.map(m => [m.partition, { topic, partition: m.partition, offset: m.offset + 1n, leaderEpoch: -1 }]))
  await consumer.commit({ offsets: [...ends.values()] })
  await consumer.close(true)
  return got
}

async function runSuite(prefix) {
  await suite({
    'admin-calls': async () => {
      const topic = `${prefix}-admin`
      const partitions = async () => (await admin.metadata({ topics: [topic], forceUpdate: true })).topics.get(topic).partitionsCount
      await create(topic, 2, { 'retention.ms': '86400000' })
      await wait(200)
      check(await partitions(), 2, 'partitions')
      await admin.createPartitions({ topics: [{ name: topic, count: 3 }] })
      await wait(200)
      check(await partitions(), 3, 'partitions after more')
      const resource = { resourceType: 2, resourceName: topic }
      const retention = async () => {
        const [about] = await admin.describeConfigs({ resources: [resource] })
        return about.configs.find(c => c.name === 'retention.ms').value
      }
      check(await retention(), '86400000', 'retention.ms')
      const set = value => [{ ...resource, configs: [{ name: 'retention.ms', configOperation: 0, value }] }]
      await admin.incrementalAlterConfigs({ resources: set('3600000') })
      check(await retention(), '3600000', 'retention.ms after alter')
      const again = await create(topic, 2).then(() => 'made', () => 'refused')
      check(again, 'refused', 'second create')
      await admin.deleteTopics({ topics: [topic] })
      await wait(500)
      check((await admin.listTopics()).includes(topic), false, 'deleted topic is listed')
    },
    codecs: async () => {
      for (const codec of ['none', 'gzip', 'snappy', 'lz4', 'zstd']) {
        const topic = `${prefix}-${codec}`
        await create(topic, 1, { 'max.message.bytes': '2097152' })
        // This client has no way to say null: absent stands for it.
        const wanted = samples()
        const messages = wanted.map(r => ({
          topic, partition: 0, key: bytes(r.key) ?? undefined, value: bytes(r.value) ?? undefined,
          headers: new Map([[Buffer.from('h'), Buffer.from(r.header)]]), timestamp: BigInt(r.time),
        }))
        await send(messages, { compression: codec })
        const got = await read(topic, `${topic}-group`, wanted.length)
        check(got.map(m => Number(m.offset)), wanted.map((_, i) => i), `${codec} offsets`)
        const header = m => String([...m.headers.values()][0])
        // Nor does it tell null from empty when it reads.
        const told = v => (v === null || v === undefined ? '' : v)
        checkRecords(
          got.map(m => ({ key: told(m.key), value: told(m.value), header: header(m), time: m.timestamp })),
          wanted.map(r => ({ ...r, key: told(r.key), value: told(r.value) })), codec)
      }
    },
    'offset-by-time': async () => {
      const topic = `${prefix}-times`
      await create(topic)
      await send(Array.from({ length: 10 }, (_, i) => ({ topic, partition: 0, value: Buffer.from('x'), timestamp: BigInt(BASE + 1000 * i) })))
      const at = async time => {
        const [about] = await admin.listOffsets({ topics: [{ name: topic, partitions: [{ partitionIndex: 0, timestamp: time }] }] })
        return Number(about.partitions[0].offset)
      }
      const got = []
      for (const t of [BASE + 3000, BASE + 3001, BASE - 5, BASE + 99999]) got.push(await at(BigInt(t)))
      check(got, [3, 4, 0, -1], 'offsets by time')
      check([await at(ListOffsetTimestamps.EARLIEST), await at(ListOffsetTimestamps.LATEST), await at(-3n)], [0, 10, 9], 'first, last, newest')
    },
    groups: async () => {
      const [topic, group] = [`${prefix}-groups`, `${prefix}-group`]
      await create(topic, 4)
      await send(Array.from({ length: 100 }, (_, i) => ({ topic, partition: i % 4, value: Buffer.from(String(i)) })))
      const seen = [...(await read(topic, group, 50)), ...(await read(topic, group, 50))].map(m => Number(m.value))
      check(seen.sort((a, b) => a - b), Array.from({ length: 100 }, (_, i) => i), 'records of the group')
      check((await admin.listGroups()).has(group), true, 'listed')
      check((await admin.describeGroups({ groups: [group] })).get(group).state.toLowerCase(), 'empty', 'state')
      const [about] = await admin.listConsumerGroupOffsets({ groups: [group] })
      check(about.topics[0].partitions.map(p => Number(p.committedOffset)), [25, 25, 25, 25], 'committed')
      await admin.deleteGroups({ groups: [group] })
      check((await admin.listGroups()).has(group), false, 'listed after delete')
    },
    'delete-records': async () => {
      const topic = `${prefix}-deleted`
      await create(topic)
      await send(Array.from({ length: 10 }, () => ({ topic, partition: 0, value: Buffer.from('x') })))
      await admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: 4n }] }] })
      check((await read(topic, `${topic}-group`, 6)).map(m => Number(m.offset)), [4, 5, 6, 7, 8, 9], 'what is left')
    },
  })
}

async function member(topic, groupId) {
  const consumer = new Consumer({ ...common, groupId, sessionTimeout: 6000, heartbeatInterval: 500, rebalanceTimeout: 10000, maxWaitTime: 300, autocommit: 200 })
  const say = () => console.log('assigned', ...(consumer.assignments?.find(a => a.topic === topic)?.partitions ?? []).toSorted())
  consumer.on('consumer:group:join', say)
  const stream = await consumer.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest' })
  say()
  stream.on('data', m => console.log('record', m.partition, Number(m.offset), String(m.value)))
  await new Promise(resolve => process.once('SIGTERM', resolve))
  await stream.close()
  await consumer.close()
  console.log('left')
}

async function idempotent(topic, count) {
  const producer = new Producer({ ...common, idempotent: true, acks: -1 })
  for (let i = 0; i < count; i += 20) {
    const values = Array.from({ length: Math.min(20, count - i) }, (_, k) => i + k)
    try {
      const { offsets } = await producer.send({ messages: values.map(v => ({ topic, partition: v % 4, value: Buffer.from(String(v)) })) })
      for (const { partition, offset } of offsets) {
        values.filter(v => v % 4 === partition).forEach((v, k) => console.log('acked', partition, Number(offset) + k, v))
      }
    } catch (error) {
      console.log('lost', error.message)
      return
    }
  }
  await producer.close()
}

await main({ suite: runSuite, member, idempotent: (topic, count) => idempotent(topic, Number(count)) })
