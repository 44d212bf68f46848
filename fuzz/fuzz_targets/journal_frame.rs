//! See `cairn_fuzz::journal_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cairn_fuzz::journal_frame(data));
