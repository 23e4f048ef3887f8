//! Whole frames, header included.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wire_fuzz::run(data));
