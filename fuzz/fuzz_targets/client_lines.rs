#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wiber::fuzzing::run("client_lines", bytes));
