// What the Node programs share: how cases report, the records of the codecs' case, and the three commands.

import { randomBytes } from 'node:crypto'
import { inspect, isDeepStrictEqual } from 'node:util'

export const BASE = 1_700_000_000_000
const large = Buffer.concat([randomBytes(1 << 19), Buffer.alloc(1 << 19)])

export const samples = () => [
  ...Array.from({ length: 20 }, (_, i) => ({ key: `k${i}`, value: `v${i} `.repeat(20), header: `h${i}`, time: BASE + i })),
  { key: null, value: 'no key', header: '', time: BASE + 20 },
  { key: 'no value', value: null, header: '', time: BASE + 21 },
  { key: '', value: '', header: '', time: BASE + 22 },
  { key: 'large', value: large, header: '', time: BASE + 23 },
]

export function check(got, wanted, what) {
  if (!isDeepStrictEqual(got, wanted)) {
    const show = v => String(JSON.stringify(v, (_, x) => (typeof x === 'bigint' ? String(x) : x))).slice(0, 300)
    throw new Error(`${what}: got ${show(got)}, wanted ${show(wanted)}`)
  }
}

// Compares what was read with what was sent: bytes, nulls and times.
export function checkRecords(got, wanted, what) {
  const plain = v => (v === null || v === undefined ? null : Buffer.from(v).toString('latin1'))
  const same = list => list.map(r => [plain(r.key), plain(r.value), r.header, Number(r.time)])
  check(same(got), same(wanted), what)
}

export const wait = ms => new Promise(resolve => setTimeout(resolve, ms))

export async function suite(cases) {
  for (const [name, test] of Object.entries(cases)) {
    try {
      await test()
      console.log(`ok ${name}`)
    } catch (error) {
      console.error(inspect(error, { depth: 6 }))
      console.log(`FAILED ${name}: ${String(error.message).replaceAll('\n', ' ').slice(0, 400)}`)
    }
  }
}

export async function main(commands) {
  const [command, , ...args] = process.argv.slice(2)
  await commands[command](...args)
  process.exit(0)
}

export const broker = process.argv[3]
