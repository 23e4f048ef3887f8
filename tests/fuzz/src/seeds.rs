//! First inputs of each target: what our own encoders write, what real clients sent, and the sites of the repository. A
//! fuzzer that has to find a whole record by chance finds little in ten seconds.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use model::batch::HEADER_BYTES;
use model::record::{Builder, Producer};
use model::window::{Claim, Fact, PartIx, Windows};
use model::{
    DiskUuid, Incarnation, LeaderEpoch, NodeId, Offset, PartitionIndex, ProducerEpoch, ProducerId,
    SiteUuid, TopicId, Uuid, WallMs, codec,
};
use node::Outbox;
use node::catalog::Catalog;
use node::group::records::{GroupValue, MemberValue, group_key};
use node::offsets::records::{OffsetValue, offset_key};
use node::sitelog::{Disk, Entry, Node, PartitionRow, Record, Replica, Topic};
use store::format::journal::{Entry as JournalEntry, EntryType};
use store::io::{Copy, Io, Mode, Name};
use store::{FormatConfig, MemIo};
use wire::{Api, Request, RequestHeader};

use crate::targets::{CODECS, RULES};

/// Writes the first inputs of `target` into `folder`.
pub(crate) fn write(target: &str, folder: &Path) {
    let seeds = match target {
        "request" => golden(),
        "produce" => bodies(&[Api::Produce]),
        "fetch" => bodies(&[Api::Fetch]),
        "cold" => bodies(Api::ALL),
        "batch" => batches(),
        "codec" => packed(),
        "windows" => vec![windows()],
        "site" => sites().into_iter().map(String::into_bytes).collect(),
        "blob" => blobs(),
        "disk" | "damaged" => disks(),
        "recover" => rings(),
        "sitelog" => records().iter().flat_map(Record::encode).collect(),
        "catalog" => vec![catalog()],
        "groups" => groups(),
        other => panic!("{other} has no first inputs"),
    };
    fs::create_dir_all(folder).expect("the corpus can be made");
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(folder.join(format!("seed-{number}")), seed).expect("the corpus can be written");
    }
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Files of a folder of the repository that end in `ext`.
fn texts(folder: &str, ext: &str) -> Vec<String> {
    let entries = fs::read_dir(repository().join(folder)).expect("part of the repository");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let wanted = paths.filter(|path| path.extension().is_some_and(|it| it == ext));
    wanted
        .map(|path| fs::read_to_string(path).expect("text"))
        .collect()
}

/// The frames of real clients, as `tests/golden` holds them.
fn golden() -> Vec<Vec<u8>> {
    let byte = |pair: &[u8]| {
        let pair = str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(pair, 16).expect("hexadecimal")
    };
    let files = texts("tests/golden", "txt");
    let lines = files.iter().flat_map(|text| text.lines());
    let frames = lines.filter_map(|line| line.rsplit_once(' '));
    frames
        .map(|(_, hex)| hex.as_bytes().chunks(2).map(byte).collect())
        .collect()
}

/// Their bodies behind the two bytes that choose API and version.
fn bodies(apis: &[Api]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    for frame in golden() {
        let key = i16::from_be_bytes([frame[0], frame[1]]);
        let version = i16::from_be_bytes([frame[2], frame[3]]);
        let Some(at) = apis.iter().position(|api| api.key() == key) else {
            continue;
        };
        let (min, max) = apis[at].advertised();
        if !(min..=max).contains(&version) {
            continue;
        }
        // API, version, correlation id; the client id and its length; no tags.
        let id = usize::from(u16::from_be_bytes([frame[8], frame[9]]));
        let body = 10 + id + usize::from(apis[at].flexible(version));
        let mut seed = vec![at as u8, (version - min) as u8];
        seed.extend_from_slice(&frame[body..]);
        bodies.push(seed);
    }
    bodies
}

fn builder() -> Builder {
    let mut builder = Builder::default();
    let headers: [(&[u8], Option<&[u8]>); 2] = [(b"h", Some(b"1")), (b"n", None)];
    builder.push(1_000, Some(b"key"), Some(b"value"), headers.into_iter());
    builder.push(1_001, Some(b"key"), None, [].into_iter());
    builder.push(999, None, Some(&[7; 200]), [].into_iter());
    builder
}

/// One of each codec in our own form, and those that real producers sent.
fn batches() -> Vec<Vec<u8>> {
    let producer = Producer {
        id: 1_000,
        epoch: 2,
        sequence: 3,
    };
    let batch = |codec| builder().finish(codec, producer).expect("memory");
    let mut batches: Vec<_> = CODECS.into_iter().map(batch).collect();
    for frame in golden() {
        let frame = Bytes::from(frame);
        let Ok(header) = RequestHeader::read(&frame) else {
            continue;
        };
        if let Ok(Request::Produce(request)) = wire::decode(&frame, &header) {
            let records = request.partitions().flat_map(|it| it.records);
            batches.extend(records.map(|it| it.to_vec()));
        }
    }
    batches
}

fn packed() -> Vec<Vec<u8>> {
    let plain = builder()
        .finish(CODECS[0], Producer::NONE)
        .expect("memory")
        .split_off(HEADER_BYTES);
    let pack = |(number, codec)| {
        let mut seed = vec![number as u8];
        seed.extend(codec::compress(codec, &plain).expect("memory"));
        seed
    };
    let mut seeds: Vec<_> = CODECS.into_iter().enumerate().map(pack).collect();
    for batch in batches() {
        // The three lowest bits of the attributes are the codec's number, which is its place in the list too.
        let mut seed = vec![batch[22] & 7];
        seed.extend_from_slice(&batch[HEADER_BYTES..]);
        seeds.push(seed);
    }
    seeds
}

fn windows() -> Vec<u8> {
    let mut windows = Windows::new(64);
    for number in 0..12 {
        let claim = Claim {
            pid: ProducerId(1_000 + number % 3),
            epoch: ProducerEpoch(0),
            first_seq: (number / 3) as i32 * 5,
            last_delta: 4,
        };
        let fact = Fact {
            base_offset: Offset(number * 5),
            claim,
            max_ts: WallMs(number),
            transactional: number % 3 == 2,
            marker: None,
        };
        windows.feed(PartIx(1), &fact);
    }
    let mut seed = vec![20];
    windows.encode(PartIx(1), &mut seed);
    seed
}

fn sites() -> Vec<String> {
    texts("config/sites", "toml")
}

fn blobs() -> Vec<Vec<u8>> {
    // The target adds head and CRC itself.
    let body = |site: site::Site| {
        let blob = site.to_blob();
        blob[24..blob.len() - 4].to_vec()
    };
    let legal = sites();
    let legal = legal.iter().flat_map(|text| site::parse(text, "site.toml"));
    legal.map(body).collect()
}

/// The first bytes of each file of an empty disk.
fn disks() -> Vec<Vec<u8>> {
    let config = FormatConfig {
        node: NodeId(1),
        incarnation: None,
        site: SiteUuid(Uuid::ZERO),
        meta: true,
        replacement: false,
        journal_bytes: 256 << 10,
        journal_apart: false,
    };
    let io = MemIo::new(7, 1 << 30);
    store::Disk::format(&io, &config).expect("a disk in memory is made");
    let names = [
        Name::Super(Copy::A),
        Name::Checkpoint(Copy::A),
        Name::Journal,
    ];
    let read = |(which, name)| {
        let file = io.open(name, Mode::Read).expect("made");
        let mut bytes = vec![0; 512];
        let got = io.pread(&file, &mut bytes, 0).expect("memory");
        bytes.truncate(got);
        // For `damaged`: which file, where. To the decoders it is three bytes too many, so they get it bare as well.
        let mut at = vec![which, 0, 0];
        at.extend_from_slice(&bytes);
        [bytes, at]
    };
    let files = (0_u8..).zip(names).flat_map(read);
    files.collect()
}

/// A replica's whole life as a group's entries.
fn rings() -> Vec<Vec<u8>> {
    let kinds = [
        EntryType::PartNew,
        EntryType::ExtOpen,
        EntryType::Append,
        EntryType::Epoch,
        EntryType::LogStart,
        EntryType::Truncate,
        EntryType::ExtSeal,
        EntryType::ExtFree,
    ];
    let payload = batches().swap_remove(0);
    let mut rings = Vec::new();
    for count in 1..=kinds.len() {
        let behind = (64 + 64 * count) as u32;
        // The first byte says that it is entries and no raw bytes.
        let mut seed = vec![1];
        for kind in &kinds[..count] {
            let mut entry = JournalEntry::new(*kind);
            entry.life.generation = 1;
            entry.ext_off = 4096;
            match kind {
                EntryType::PartNew => (entry.len, entry.payload_off) = (20, behind),
                EntryType::Append => {
                    (entry.len, entry.payload_off) = (payload.len() as u32, behind + 20);
                    entry.span = 3;
                }
                EntryType::Epoch => entry.base = Offset(3),
                _ => {}
            }
            let mut bytes = [0; 64];
            entry.encode(&mut bytes);
            seed.extend_from_slice(&bytes);
        }
        seed.extend_from_slice(&[0; 20]);
        seed.extend_from_slice(&payload);
        rings.push(seed);
    }
    rings
}

const DISK: DiskUuid = DiskUuid(Uuid([3; 16]));
const TOPIC: TopicId = TopicId(Uuid([4; 16]));
const PLACE: Replica = Replica {
    node: NodeId(1),
    disk: DISK,
};

/// A site's first entries, one of each kind.
fn records() -> Vec<Record> {
    let node = Node {
        id: NodeId(1),
        incarnation: Incarnation::default(),
        disks: vec![Disk {
            uuid: DISK,
            bytes: 1 << 40,
        }],
        versions: (1, 1),
        public_key: Vec::new(),
    };
    let configs = vec![("retention.ms".to_owned(), "86400000".to_owned())];
    let topic = Topic {
        name: "orders".to_owned(),
        id: TOPIC,
        configs: configs.clone(),
        share: 1 << 30,
        partitions: vec![vec![PLACE], vec![PLACE]],
    };
    let row = PartitionRow {
        partition: PartitionIndex(0),
        replicas: vec![PLACE],
        leader: Some(NodeId(1)),
        epoch: LeaderEpoch(1),
        part_ver: 1,
        isr: vec![0],
        unclean: false,
    };
    let entries = [
        Entry::Term,
        Entry::Site {
            uuid: SiteUuid(Uuid([5; 16])),
        },
        Entry::Node(node),
        Entry::Topic(topic),
        Entry::Partition(vec![(TOPIC, vec![row])]),
        Entry::Config {
            topic: TOPIC,
            configs,
            share: 1 << 30,
        },
        Entry::Pids {
            node: NodeId(1),
            first: ProducerId(0),
        },
        Entry::Drain {
            node: NodeId(1),
            on: true,
        },
        Entry::SiteVersion { version: 1 },
        Entry::TopicDel {
            topic: TopicId(Uuid([6; 16])),
        },
    ];
    entries.into_iter().map(Record::broker).collect()
}

fn catalog() -> Vec<u8> {
    let mut catalog = Catalog::new(NodeId(1), RULES);
    let mut out = Outbox::new();
    for record in records() {
        catalog.apply(&record, &mut out);
    }
    catalog.encode()
}

fn groups() -> Vec<Vec<u8>> {
    let member = MemberValue {
        member: "m-1".to_owned(),
        instance: Some("i".to_owned()),
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        rebalance_timeout_ms: 300_000,
        session_timeout_ms: 45_000,
        subscription: vec![1, 2, 3],
        assignment: vec![4, 5],
    };
    let group = GroupValue {
        protocol_type: "consumer".to_owned(),
        generation: 7,
        protocol: Some("range".to_owned()),
        leader: Some("m-1".to_owned()),
        state_at: 1,
        members: vec![member],
    };
    let offset = OffsetValue {
        offset: 42,
        leader_epoch: 3,
        metadata: "note".to_owned(),
        committed_at: 5,
        expires_at: -1,
    };
    let expiring = OffsetValue {
        expires_at: 9,
        ..offset.clone()
    };
    vec![
        group_key("g"),
        offset_key("g", "orders", 3),
        group.encode(),
        offset.encode(),
        expiring.encode(),
    ]
}
