//! What lies on a disk as it may never lie there; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| store_fuzz::damaged(data));
