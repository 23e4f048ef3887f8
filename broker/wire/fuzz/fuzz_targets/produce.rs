//! Bodies of Produce, all versions.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wire_fuzz::run_body(&[wire::Api::Produce], data));
