//! `keyward::fuzzing::credential` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyward::fuzzing::credential(data));
