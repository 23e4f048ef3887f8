//! Heap allocations of a running broker, counted: as many for a batch of a thousand records as for one of one.
//!
//! The count is of the whole process, so it runs in one of its own: this test program starts itself again.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write as _;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{NodeArgs, RunArgs, run};

#[path = "../tests/raw/mod.rs"]
mod raw;

/// Requests of one round.
const REQUESTS: u64 = 50;
/// The least of so many rounds counts: timers and the sweep allocate too, now and then.
const ROUNDS: usize = 5;

/// Bytes that a request may take beside its frame: a connection's own 4 KiB, and small change.
const BESIDE: u64 = 8 * 1024;

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

fn count(bytes: usize) {
    COUNT.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// Allocations of one request, and their bytes, in steady state.
fn of_each(mut request: impl FnMut()) -> (u64, u64) {
    for _ in 0..REQUESTS {
        request();
    }
    let rounds = (0..ROUNDS).map(|_| {
        let before = (COUNT.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
        for _ in 0..REQUESTS {
            request();
        }
        (
            (COUNT.load(Ordering::Relaxed) - before.0) / REQUESTS,
            (BYTES.load(Ordering::Relaxed) - before.1) / REQUESTS,
        )
    });
    rounds.min().expect("some rounds")
}

/// Says to the test of this program that it is alone in its process.
const ALONE: &str = "HOWDAH_COUNTS_ALONE";

/// Runs the test of this name in a process of its own.
fn alone(name: &str) {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "1");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(said.contains("1 passed"), "{name} was not run: {said}");
}

#[test]
fn allocations_do_not_grow_with_records() {
    if std::env::var_os(ALONE).is_none() {
        return alone("counts::allocations_do_not_grow_with_records");
    }
    let scratch = raw::Scratch::new("counts").unwrap();
    let args = RunArgs {
        site: None,
        own: NodeArgs {
            node: None,
            data: scratch.0.join("data"),
        },
        disk: Vec::new(),
        kafka: Some(raw::free_port()),
        http: Some(raw::free_port()),
    };
    let kafka = args.kafka.unwrap();
    std::thread::spawn(move || run::run(&args));
    let mut client = raw::Client::connect(kafka);
    let mut table = String::new();
    for (records, bytes) in [(1, 100), (10, 1_000), (1, 16_000), (1_000, 16_000)] {
        let frame = raw::produce(&raw::batch(records, bytes));
        let mut next = client.produce(&frame);
        let produced = of_each(|| assert!(client.produce(&frame) > next));
        // The frame's own memory, and nothing else that could hold its batch: the next copy is the journal group's.
        assert!(
            produced.1 < frame.len() as u64 + BESIDE,
            "{} B for a frame of {} B",
            produced.1,
            frame.len()
        );
        // As a consumer that goes through the log, a batch a request.
        let mut frame = raw::fetch(next, bytes as u32);
        let fetched = of_each(|| {
            raw::fetch_on(&mut frame, next);
            assert!(client.fetch(&frame) > bytes);
            next = next.plus(records.into());
        });
        assert!(fetched.1 < BESIDE, "{} B for a fetch", fetched.1);
        writeln!(
            table,
            "{records} of {bytes} B: {} {}",
            produced.0, fetched.0
        )
        .unwrap();
    }
    // Records and bytes of the batch; allocations of a produce, and of a fetch. Fewer are good news, to be written down
    // here.
    assert_eq!(
        table,
        "\
1 of 100 B: 8 22
10 of 1000 B: 8 22
1 of 16000 B: 8 21
1000 of 16000 B: 8 21
",
        "\n{table}"
    );
}
