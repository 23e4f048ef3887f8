//! Bodies of all APIs, all versions: the walk and kafka-protocol must agree on every byte.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wire_fuzz::run_body(wire::Api::ALL, data));
