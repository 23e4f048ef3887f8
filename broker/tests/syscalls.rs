//! System calls of a running broker, counted by request: what each one costs on every machine, whatever its clock says.
//!
//! The broker's threads are traced from their start on (ptrace(2)); the client asks one request at a time.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

mod raw;

/// Requests of one round, and rounds.
const REQUESTS: u64 = 20;
const ROUNDS: usize = 6;

/// Calls so far, by thread and number.
type Calls = BTreeMap<(String, u64), u64>;

/// A broker whose calls are counted.
struct Traced {
    child: Child,
    calls: Arc<Mutex<Calls>>,
    tracer: Option<std::thread::JoinHandle<()>>,
}

impl Traced {
    /// Attaches to every thread the broker has. It has all of them before its first answer.
    fn attach(child: Child) -> Self {
        let calls: Arc<Mutex<Calls>> = Arc::default();
        let pid = child.id();
        let counted = calls.clone();
        let (ready, attached) = std::sync::mpsc::channel();
        // Only the thread that attached may trace.
        let tracer = std::thread::spawn(move || {
            let mut names = BTreeMap::new();
            for (thread, name) in threads(pid) {
                ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD).unwrap();
                ptrace::interrupt(thread).unwrap();
                names.insert(thread, name);
            }
            ready.send(()).unwrap();
            trace(&names, &counted);
        });
        attached.recv().unwrap();
        Self {
            child,
            calls,
            tracer: Some(tracer),
        }
    }

    fn calls(&self) -> Calls {
        self.calls.lock().unwrap().clone()
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        if let Some(tracer) = self.tracer.take() {
            tracer.join().unwrap();
        }
    }
}

fn threads(pid: u32) -> Vec<(Pid, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let threads = tasks.map(|task| {
        let path = task.unwrap().path();
        let id: i32 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let name = fs::read_to_string(path.join("comm")).unwrap();
        (Pid::from_raw(id), name.trim().to_owned())
    });
    threads.collect()
}

/// Counts until every thread has ended.
fn trace(names: &BTreeMap<Pid, String>, calls: &Mutex<Calls>) {
    let mut left = names.len();
    let mut inside: BTreeMap<Pid, bool> = BTreeMap::new();
    while left > 0 {
        let go_on = |thread, signal| match ptrace::syscall(thread, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => panic!("{thread}: {error}"),
        };
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::PtraceSyscall(thread)) => {
                let inside = inside.entry(thread).or_default();
                *inside = !*inside;
                if *inside && let Ok(registers) = ptrace::getregs(thread) {
                    let key = (names[&thread].clone(), number(&registers));
                    *calls.lock().unwrap().entry(key).or_default() += 1;
                }
                go_on(thread, None);
            }
            Ok(WaitStatus::Stopped(thread, signal)) => go_on(thread, Some(signal)),
            Ok(WaitStatus::PtraceEvent(thread, ..)) => go_on(thread, None::<Signal>),
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => left -= 1,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => break,
            Err(error) => panic!("waitpid: {error}"),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn number(registers: &libc::user_regs_struct) -> u64 {
    registers.orig_rax
}

#[cfg(target_arch = "aarch64")]
fn number(registers: &libc::user_regs_struct) -> u64 {
    registers.regs[8]
}

fn name(number: u64) -> String {
    let known = [
        (libc::SYS_epoll_wait, "epoll_wait"),
        (libc::SYS_epoll_pwait, "epoll_wait"),
        (libc::SYS_recvfrom, "recv"),
        (libc::SYS_sendto, "send"),
        (libc::SYS_sendfile, "sendfile"),
        (libc::SYS_futex, "futex"),
        (libc::SYS_read, "read"),
        (libc::SYS_write, "write"),
        (libc::SYS_pread64, "pread"),
        (libc::SYS_preadv2, "preadv2"),
        (libc::SYS_pwritev, "pwritev"),
        (libc::SYS_pwritev2, "pwritev2"),
        (libc::SYS_sched_yield, "sched_yield"),
    ];
    let found = known.iter().find(|(it, _)| *it as u64 == number);
    found.map_or_else(|| format!("call {number}"), |(_, name)| (*name).to_owned())
}

/// What each request costs, by thread: the least of some rounds. A frame that comes in two pieces on a busy machine costs a
/// wait and a read more.
fn of_each(broker: &Traced, mut request: impl FnMut()) -> BTreeMap<String, u64> {
    let mut round = || {
        let before = broker.calls();
        for _ in 0..REQUESTS {
            request();
        }
        let mut each: BTreeMap<String, u64> = BTreeMap::new();
        for (key, after) in broker.calls() {
            let count = after - before.get(&key).copied().unwrap_or(0);
            *each
                .entry(format!("{} {}", key.0, name(key.1)))
                .or_default() += count;
        }
        each
    };
    round();
    let mut least = round();
    for _ in 1..ROUNDS {
        let other = round();
        least.retain(|call, _| other.contains_key(call));
        for (call, count) in &mut least {
            *count = other[call].min(*count);
        }
    }
    // Half a call a request and less is a timer's, or chance.
    least
        .values_mut()
        .for_each(|count| *count = (*count + REQUESTS / 2) / REQUESTS);
    // Whether a thread sleeps when there is work for it is chance as well.
    least.retain(|call, count| *count > 0 && !call.ends_with(" futex"));
    least
}

fn row(table: &mut String, what: &str, calls: &BTreeMap<String, u64>) {
    let calls = calls.iter().map(|(call, count)| format!("{call} {count}"));
    writeln!(table, "{what}: {}", calls.collect::<Vec<_>>().join(", ")).unwrap();
}

#[test]
fn a_request_costs_the_same_few_system_calls_whatever_it_carries() {
    let scratch = raw::Scratch::new("syscalls").unwrap();
    let (kafka, http) = (raw::free_port(), raw::free_port());
    let program = PathBuf::from(env!("CARGO_BIN_EXE_howdah"));
    let child = Command::new(program)
        .args(["run", "--data"])
        .arg(scratch.0.join("data"))
        .args(["--kafka", &kafka.to_string(), "--http", &http.to_string()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut client = raw::Client::connect(kafka);
    let broker = Traced::attach(child);
    let mut table = String::new();
    for (records, bytes) in [(1, 128), (10, 1_024), (100, 16_384), (1_000, 98_304)] {
        let frame = raw::produce(&raw::batch(records, bytes));
        let mut next = client.produce(&frame);
        let produced = of_each(&broker, || assert!(client.produce(&frame) > next));
        row(
            &mut table,
            &format!("produce {records:4} {bytes:6}"),
            &produced,
        );
        // As a consumer that goes through the log, a batch a request.
        let mut frame = raw::fetch(next, bytes as u32);
        let fetched = of_each(&broker, || {
            raw::fetch_on(&mut frame, next);
            assert_eq!(client.fetch(&frame) / bytes, 1);
            next = next.plus(records.into());
        });
        row(
            &mut table,
            &format!("fetch   {records:4} {bytes:6}"),
            &fetched,
        );
    }
    // Records and bytes of the batch; then calls by thread. Fewer are good news, to be written down here.
    assert_eq!(
        table,
        "\
produce    1    128: disk0-write pwritev 1, disk0-write pwritev2 1, disk0-write write 1, howdah epoll_wait 2, howdah recv 1, howdah send 1
fetch      1    128: howdah epoll_wait 1, howdah pread 1, howdah preadv2 3, howdah recv 1, howdah send 3
produce   10   1024: disk0-write pwritev 1, disk0-write pwritev2 1, disk0-write write 1, howdah epoll_wait 2, howdah recv 1, howdah send 1
fetch     10   1024: howdah epoll_wait 1, howdah pread 1, howdah preadv2 3, howdah recv 1, howdah send 3
produce  100  16384: disk0-write pwritev 1, disk0-write pwritev2 1, disk0-write write 1, howdah epoll_wait 2, howdah recv 3, howdah send 1
fetch    100  16384: howdah epoll_wait 1, howdah preadv2 4, howdah recv 1, howdah send 2, howdah sendfile 1
produce 1000  98304: disk0-write pwritev 1, disk0-write pwritev2 1, disk0-write write 1, howdah epoll_wait 2, howdah recv 3, howdah send 1
fetch   1000  98304: howdah epoll_wait 1, howdah preadv2 3, howdah recv 1, howdah send 2, howdah sendfile 1
",
        "\n{table}"
    );
}
