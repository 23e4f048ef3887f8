//! The few Kafka frames that the loads send and read, by hand: Produce v8 and Fetch v11, the last of each without tags, and
//! what Kafka 4 and every broker since 2.3 answers.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// `base_offset 8 · length 4 · leader_epoch 4 · magic 1 · crc 4 · attributes 2 · last_offset_delta 4 · base and max
/// timestamp 16 · producer id 8, epoch 2 · base_sequence 4 · count 4`, then the records.
pub(crate) const BATCH_HEADER: usize = 61;
/// Larger answers than any load asks for are a broken stream.
const FRAME_BYTES_MAX: usize = 64 << 20;

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// One record without key and headers.
fn record(out: &mut Vec<u8>, delta: i64, value: &[u8]) {
    let mut body = vec![0]; // attributes
    varint(&mut body, 0); // timestamp delta
    varint(&mut body, delta);
    varint(&mut body, -1); // no key
    varint(&mut body, value.len() as i64);
    body.extend_from_slice(value);
    varint(&mut body, 0); // no headers
    varint(out, body.len() as i64);
    out.extend_from_slice(&body);
}

/// A batch of `count` records with values of `value_bytes` random bytes.
pub(crate) fn batch(count: u32, value_bytes: usize, base_offset: i64) -> Vec<u8> {
    let mut random = crate::numbers::Random::new(base_offset as u64 + 7);
    let mut records = Vec::new();
    for delta in 0..i64::from(count) {
        let value: Vec<u8> = (0..value_bytes).map(|_| random.below(256) as u8).collect();
        record(&mut records, delta, &value);
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |it| it.as_millis() as i64);
    let mut tail = Vec::with_capacity(records.len() + 40);
    tail.extend_from_slice(&0i16.to_be_bytes());
    tail.extend_from_slice(&(count as i32 - 1).to_be_bytes());
    tail.extend_from_slice(&now.to_be_bytes());
    tail.extend_from_slice(&now.to_be_bytes());
    tail.extend_from_slice(&(-1i64).to_be_bytes());
    tail.extend_from_slice(&(-1i16).to_be_bytes());
    tail.extend_from_slice(&(-1i32).to_be_bytes());
    tail.extend_from_slice(&count.to_be_bytes());
    tail.extend_from_slice(&records);
    let mut out = Vec::with_capacity(tail.len() + 21);
    out.extend_from_slice(&base_offset.to_be_bytes());
    out.extend_from_slice(&(tail.len() as i32 + 9).to_be_bytes());
    out.extend_from_slice(&0i32.to_be_bytes());
    out.push(2);
    out.extend_from_slice(&crc32c::crc32c(&tail).to_be_bytes());
    out.extend_from_slice(&tail);
    out
}

/// A batch whose whole length is `bytes`, with records of about 1 KiB, for rounds of exact size.
pub(crate) fn batch_of(bytes: usize) -> Vec<u8> {
    // What a record costs beside its value is 6 to 10 bytes; the last try is exact or one short, which no figure shows.
    let count = (bytes / 1024).max(1) as u32;
    let mut value = (bytes - BATCH_HEADER) / count as usize;
    loop {
        let made = batch(count, value, 0);
        if made.len() <= bytes {
            return made;
        }
        value -= (made.len() - bytes).div_ceil(count as usize);
    }
}

fn string(out: &mut Vec<u8>, value: &str) {
    out.extend_from_slice(&(value.len() as i16).to_be_bytes());
    out.extend_from_slice(value.as_bytes());
}

fn header(api: i16, version: i16) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend_from_slice(&api.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    string(&mut out, "bench");
    out
}

fn seal(mut out: Vec<u8>) -> Vec<u8> {
    let length = out.len() as u32 - 4;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// A whole Produce frame, acks=all, one batch for each partition.
pub(crate) fn produce(topic: &str, partitions: &[u32], batch: &[u8]) -> Vec<u8> {
    let mut out = header(0, 8);
    out.extend_from_slice(&(-1i16).to_be_bytes()); // no transaction
    out.extend_from_slice(&(-1i16).to_be_bytes()); // acks=all
    out.extend_from_slice(&30_000i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    string(&mut out, topic);
    out.extend_from_slice(&(partitions.len() as i32).to_be_bytes());
    for partition in partitions {
        out.extend_from_slice(&partition.to_be_bytes());
        out.extend_from_slice(&(batch.len() as i32).to_be_bytes());
        out.extend_from_slice(batch);
    }
    seal(out)
}

/// A whole Fetch frame without a session.
pub(crate) fn fetch(
    topic: &str,
    wants: &[(u32, i64)],
    partition_bytes: i32,
    max_bytes: i32,
    wait_ms: i32,
) -> Vec<u8> {
    let mut out = header(1, 11);
    for value in [-1, wait_ms, 1, max_bytes] {
        out.extend_from_slice(&value.to_be_bytes());
    }
    out.push(0); // read uncommitted
    out.extend_from_slice(&0i32.to_be_bytes());
    out.extend_from_slice(&(-1i32).to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    string(&mut out, topic);
    out.extend_from_slice(&(wants.len() as i32).to_be_bytes());
    for (partition, offset) in wants {
        out.extend_from_slice(&partition.to_be_bytes());
        out.extend_from_slice(&(-1i32).to_be_bytes());
        out.extend_from_slice(&offset.to_be_bytes());
        out.extend_from_slice(&(-1i64).to_be_bytes());
        out.extend_from_slice(&partition_bytes.to_be_bytes());
    }
    out.extend_from_slice(&0i32.to_be_bytes()); // nothing forgotten
    string(&mut out, "");
    seal(out)
}

/// Reads big-endian fields; a short frame is an error, never a panic.
#[derive(Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, bytes: usize) -> io::Result<&'a [u8]> {
        let (head, rest) = self
            .0
            .split_at_checked(bytes)
            .ok_or_else(|| io::Error::other("an answer ends too early"))?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn i16(&mut self) -> io::Result<i16> {
        Ok(i16::from_be_bytes(
            self.take(2)?.try_into().expect("two bytes"),
        ))
    }

    pub(crate) fn i32(&mut self) -> io::Result<i32> {
        Ok(i32::from_be_bytes(
            self.take(4)?.try_into().expect("four bytes"),
        ))
    }

    pub(crate) fn i64(&mut self) -> io::Result<i64> {
        Ok(i64::from_be_bytes(
            self.take(8)?.try_into().expect("eight bytes"),
        ))
    }

    /// A string, null as empty.
    pub(crate) fn string(&mut self) -> io::Result<&'a [u8]> {
        let length = self.i16()?;
        self.take(usize::try_from(length).unwrap_or(0))
    }
}

/// A topic just made may not be led yet: UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER; and a
/// thousand first writes at once may take longer than a request may wait: REQUEST_TIMED_OUT. Clients ask again.
const NOT_YET: [i16; 4] = [3, 5, 6, 7];

/// True when every partition of a Produce answer says 0, false when some say that they are not led yet, else an error.
pub(crate) fn produced(answer: &[u8]) -> io::Result<bool> {
    let (mut fields, mut all) = (Fields(answer), true);
    fields.i32()?;
    for _ in 0..fields.i32()? {
        fields.string()?;
        for _ in 0..fields.i32()? {
            let (partition, code) = (fields.i32()?, fields.i16()?);
            all &= code == 0;
            if code != 0 && !NOT_YET.contains(&code) {
                return Err(io::Error::other(format!(
                    "produce to partition {partition}: error {code}"
                )));
            }
            fields.take(24)?;
            for _ in 0..fields.i32()? {
                fields.i32()?;
                fields.string()?;
            }
            fields.string()?;
        }
    }
    Ok(all)
}

/// Calls `each` with (partition, error code, record bytes) of a Fetch answer.
pub(crate) fn each_fetched(answer: &[u8], mut each: impl FnMut(u32, i16, &[u8])) -> io::Result<()> {
    let mut fields = Fields(answer);
    fields.take(8)?;
    let code = fields.i16()?;
    if code != 0 {
        return Err(io::Error::other(format!("fetch: error {code}")));
    }
    fields.i32()?;
    for _ in 0..fields.i32()? {
        fields.string()?;
        for _ in 0..fields.i32()? {
            let (partition, code) = (fields.i32()?, fields.i16()?);
            fields.take(24)?;
            let aborted = usize::try_from(fields.i32()?).unwrap_or(0);
            fields.take(aborted * 16 + 4)?;
            let bytes = usize::try_from(fields.i32()?).unwrap_or(0);
            each(partition as u32, code, fields.take(bytes)?);
        }
    }
    Ok(())
}

/// The offset after the last whole batch in `records`, and the bytes of whole batches.
pub(crate) fn end_of(records: &[u8]) -> Option<(i64, usize)> {
    let (mut at, mut end) = (0, None);
    while let Some(head) = records.get(at..at + BATCH_HEADER) {
        let mut fields = Fields(head);
        let (base, length) = (
            fields.i64().ok()?,
            usize::try_from(fields.i32().ok()?).ok()?,
        );
        fields.take(11).ok()?;
        let delta = fields.i32().ok()?;
        if at + 12 + length > records.len() {
            break;
        }
        at += 12 + length;
        end = Some((base + i64::from(delta) + 1, at));
    }
    end
}

/// A connection that asks one thing at a time.
#[derive(Debug)]
pub(crate) struct Caller {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Caller {
    pub(crate) fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            answer: Vec::new(),
        })
    }

    /// Sends a whole frame and gives the answer without its length.
    pub(crate) fn ask(&mut self, frame: &[u8]) -> io::Result<&[u8]> {
        self.stream.write_all(frame)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::other(format!("an answer of {length} bytes")));
        }
        self.answer.resize(length, 0);
        self.stream.read_exact(&mut self.answer)?;
        Ok(&self.answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_the_size_asked_for_and_end_where_they_say() {
        for bytes in [400, 4096, 16 << 10, 64 << 10, 1 << 20] {
            let made = batch_of(bytes);
            assert!(
                made.len() <= bytes && made.len() + bytes / 512 + 8 > bytes,
                "{bytes}: {}",
                made.len()
            );
            let count = (bytes / 1024).max(1) as i64;
            assert_eq!(end_of(&made), Some((count, made.len())));
            assert_eq!(end_of(&made[..made.len() - 1]), None);
            let twice = [batch(3, 10, 100), batch(2, 10, 103)].concat();
            assert_eq!(end_of(&twice), Some((105, twice.len())));
        }
    }

    #[test]
    fn an_error_code_of_any_partition_is_an_error() {
        let answer = |code: i16| {
            let mut out = 1i32.to_be_bytes().to_vec();
            out.extend_from_slice(&1i32.to_be_bytes());
            string(&mut out, "t");
            out.extend_from_slice(&2i32.to_be_bytes());
            for (partition, code) in [(0i32, 0), (1, code)] {
                out.extend_from_slice(&partition.to_be_bytes());
                out.extend_from_slice(&code.to_be_bytes());
                out.extend_from_slice(&[0; 24]);
                out.extend_from_slice(&0i32.to_be_bytes());
                out.extend_from_slice(&(-1i16).to_be_bytes());
            }
            out
        };
        assert!(produced(&answer(0)).is_ok_and(|all| all));
        assert!(produced(&answer(6)).is_ok_and(|all| !all));
        assert!(produced(&answer(56)).is_err());
        assert!(produced(&answer(0)[..20]).is_err());
    }
}
