//! See `cairn_fuzz::rdb_value`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cairn_fuzz::rdb_value(data));
