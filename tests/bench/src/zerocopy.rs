//! What it costs to send a file over loopback: read+write, mmap+write and `sendfile` with a head of 96 bytes before each
//! chunk, by chunk size. The figure is the sender's CPU; the receiver copies the bytes out, as a client does.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::sendfile;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::{SendFlags, send};
use rustix::time::{ClockId, clock_gettime};

const FILE_BYTES: u64 = 256 << 20;
const CHUNKS: [u64; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
const WAYS: [&str; 3] = ["read+write", "mmap+write", "head+sendfile"];
/// What a Fetch answer puts before the records of a partition, about.
const HEAD: [u8; 96] = [0; 96];

fn thread_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let far = listener.accept()?.0;
    near.set_nodelay(true)?;
    Ok((near, far))
}

/// A file's first bytes in memory.
struct Mapping(*mut std::ffi::c_void);

impl Mapping {
    fn new(file: &File) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing of ours.
        let at = unsafe {
            mmap(
                std::ptr::null_mut(),
                FILE_BYTES as usize,
                ProtFlags::READ,
                MapFlags::SHARED | MapFlags::POPULATE,
                file,
                0,
            )
        };
        Ok(Self(at?))
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is FILE_BYTES long, lives as long as `self`, and nobody writes or truncates the file meanwhile:
        // the driver made it for this run.
        unsafe { std::slice::from_raw_parts(self.0.cast::<u8>(), FILE_BYTES as usize) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by mmap with this length, and no slice of it outlives `self`.
        let _ = unsafe { munmap(self.0, FILE_BYTES as usize) };
    }
}

/// CPU seconds of the sender for each gigabyte.
fn figure(way: &str, file: &File, mapping: &Mapping, chunk: u64, total: u64) -> io::Result<f64> {
    let (mut near, mut far) = pair()?;
    let receiver = std::thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        while matches!(far.read(&mut buffer), Ok(1..)) {}
    });
    let mut buffer = vec![0; chunk as usize];
    let before = thread_seconds();
    let (mut sent, mut at) = (0, 0);
    while sent < total {
        if at + chunk > FILE_BYTES {
            at = 0;
        }
        send(&near, &HEAD, SendFlags::MORE | SendFlags::NOSIGNAL)?;
        match way {
            "read+write" => {
                file.read_exact_at(&mut buffer, at)?;
                near.write_all(&buffer)?;
            }
            "mmap+write" => near.write_all(&mapping.bytes()[at as usize..][..chunk as usize])?,
            _ => {
                let mut from = at;
                while from < at + chunk {
                    let left = (at + chunk - from) as usize;
                    sendfile(&near, file, Some(&mut from), left)?;
                }
            }
        }
        sent += chunk;
        at += chunk;
    }
    let took = thread_seconds() - before;
    drop(near);
    receiver
        .join()
        .map_err(|_| io::Error::other("the receiver panicked"))?;
    Ok(took / (sent as f64 / 1e9))
}

pub(crate) fn run(file: &Path, gigabytes: f64, turns: u32) -> io::Result<()> {
    let file = File::open(file)?;
    if file.metadata()?.len() < FILE_BYTES {
        return Err(io::Error::other(format!(
            "the file must have {FILE_BYTES} bytes"
        )));
    }
    let mapping = Mapping::new(&file)?;
    let total = (gigabytes * 1e9) as u64;
    let mut rows = Vec::new();
    for way in WAYS {
        for chunk in CHUNKS {
            let mut least = f64::INFINITY;
            for _ in 0..turns {
                least = least.min(figure(way, &file, &mapping, chunk, total)?);
            }
            rows.push(format!(
                "{{\"way\":\"{way}\",\"chunk\":{chunk},\"cpu_s_per_gb\":{least:.4}}}"
            ));
        }
    }
    println!("[{}]", rows.join(","));
    Ok(())
}
