//! See `cairn_fuzz::script_libraries`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cairn_fuzz::script_libraries(data));
